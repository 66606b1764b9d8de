"""The pretend CUDA in this process: its switches, its memory and its counts. See README.md.

Environment, read when torch is imported and by `from_environment`:

    PRETEND_CUDA=FOLDER           the libraries (`tests.pretend_cuda.build`); without it, nothing happens
    PRETEND_CUDA_DEVICES=2        how many devices there are; 1 by default
    PRETEND_CUDA_MB=24000         memory of each, in MiB; without limit by default
    PRETEND_CUDA_REFUSE=100       the hundredth allocation from then on fails, whatever memory there is
    PRETEND_CUDA_RACES=1          kernels that race on CUDA move their results by one unit in the last place
"""

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]
ROOMS = tuple(f"{ROOT / name}/" for name in ("froc", "search", "audit", "cli"))
COUNTS = (
    "launches",
    "waits",
    "copies_to_device",
    "copies_to_host",
    "bytes_to_device",
    "bytes_to_host",
    "allocations",
    "refused_allocations",
)
"""What is counted, in the order of `Count` in native/device.cpp: kernels, times that the host waits for the device, copies."""
NAME, MEMORY, CAPABILITY = "pretend H200", 141 * 2**30, (9, 0)
"""Of every device; the memory is that without a limit."""

Place = tuple[str, str, str]
"""Kind of wait, operator, and the froc `file:line function` that it comes from."""

_OBSERVER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)
_native: Any = None
_observer: Any = None
_places: Counter[Place] = Counter()
_limit = 0
_devices = 1


def when_torch_is_imported() -> None:
    """Start the device with torch: one of its libraries takes the place of a symbol of torch's, so it must be loaded before."""
    if "torch" in sys.modules:
        raise ImportError("the pretend device must be set up before torch is imported")
    sys.meta_path.insert(0, _TorchFinder())


class _TorchFinder(importlib.abc.MetaPathFinder):
    """Finds torch and nothing else, for whoever asks whether it is there and for who imports it."""

    _searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch" or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec("torch")
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None and spec.origin is not None:
            spec.loader = _TorchLoader(spec.loader, Path(spec.origin).parent)
        return spec


class _TorchLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, folder: Path) -> None:
        self._loader, self._folder = loader, folder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        _load(Path(os.environ["PRETEND_CUDA"]), self._folder)
        self._loader.exec_module(module)
        _take_the_place_of_cuda()
        from_environment()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _load(folder: Path, torch: Path) -> None:
    global _native
    from tests.pretend_cuda.build import ACCELERATOR, DEVICE, HOST_SCALARS

    ctypes.CDLL(str(folder / ACCELERATOR), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(torch / "lib" / "libtorch_cpu.so"), mode=ctypes.RTLD_GLOBAL)
    _native = ctypes.CDLL(str(folder / DEVICE), mode=ctypes.RTLD_GLOBAL)
    for name in ("allocated", "peak", "count", "state_size"):
        getattr(_native, f"pretend_{name}").restype = ctypes.c_int64
    _native.pretend_limit.argtypes = _native.pretend_refuse.argtypes = [ctypes.c_int64]
    _native.pretend_seed.argtypes = [ctypes.c_int, ctypes.c_uint64]
    _native.pretend_get_state.argtypes = [ctypes.c_int, ctypes.c_void_p]
    _native.pretend_set_state.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64]
    _native.pretend_start(str(folder / HOST_SCALARS).encode())


def active() -> bool:
    """Whether this process has the pretend device."""
    return _native is not None


def from_environment() -> None:
    """Set the number of devices, their memory, the allocation that fails and whether kernels race; a forked process calls it again."""
    show(int(os.environ.get("PRETEND_CUDA_DEVICES", "1")))
    limit(int(float(os.environ.get("PRETEND_CUDA_MB", "0")) * 2**20))
    refuse(int(os.environ.get("PRETEND_CUDA_REFUSE", "0")))
    race(os.environ.get("PRETEND_CUDA_RACES") == "1")


def show(devices: int) -> None:
    """Let there be so many devices."""
    global _devices
    _devices = devices
    _native.pretend_show(devices)


def limit(size: int | None) -> None:
    """Let each device have so many bytes; None or 0 for no limit."""
    global _limit
    _limit = size or 0
    _native.pretend_limit(_limit)


def refuse(number: int) -> None:
    """Let the allocation of this number, counted from 1 and from now on, fail; 0 for none."""
    _native.pretend_refuse(number)


def race(on: bool) -> None:
    """Let kernels that race on CUDA differ from call to call."""
    _native.pretend_race(int(on))


def allocated(device: int = 0) -> int:
    """Bytes of all tensors on a device."""
    return int(_native.pretend_allocated(device))


def peak(device: int = 0) -> int:
    """Largest number of bytes since `reset_peak`."""
    return int(_native.pretend_peak(device))


def reset_peak(device: int = 0) -> None:
    """Let `peak` begin at what is allocated now."""
    _native.pretend_reset_peak(device)


def counts() -> dict[str, int]:
    """Launches, copies, waits and what else is in `COUNTS`, since `reset_counts` or `watching`."""
    return {name: int(_native.pretend_count(number)) for number, name in enumerate(COUNTS)}


def reset_counts() -> None:
    """Begin all counts at 0."""
    _native.pretend_reset_counts()


def places() -> Counter[Place]:
    """Number of waits by place, of the last `watching`."""
    return _places.copy()


@contextmanager
def watching() -> Iterator[Counter[Place]]:
    """Count from 0, and where in froc the host waits for the device; yields the number of waits by place."""
    global _observer
    _places.clear()
    reset_counts()
    _observer = _OBSERVER(_seen)
    _native.pretend_observe(_observer)
    try:
        yield _places
    finally:
        _native.pretend_observe(None)


def _seen(kind: bytes, operator: bytes) -> None:
    _places[kind.decode(), operator.decode(), _froc_line()] += 1


def _froc_line() -> str:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOMS):
            file = os.path.relpath(os.path.realpath(name), ROOT)
            return f"{file}:{frame.f_lineno} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return "elsewhere"


def _index(device: "int | str | torch.device | None" = None) -> int:
    import torch

    if device is None:
        return int(_native.pretend_current())
    if isinstance(device, int):
        return device
    device = torch.device(device)
    return _index() if device.index is None else device.index


class _Current:
    """`torch.cuda.device`."""

    def __init__(self, device: Any) -> None:
        self._wanted = _index(device)

    def __enter__(self) -> Self:
        self._before = _index()
        _native.pretend_set_current(self._wanted)
        return self

    def __exit__(self, *_: object) -> None:
        _native.pretend_set_current(self._before)


def _get_rng_state(device: Any = "cuda") -> "torch.Tensor":
    import torch

    state = torch.empty(int(_native.pretend_state_size(_index(device))), dtype=torch.uint8)
    _native.pretend_get_state(_index(device), state.data_ptr())
    return state


def _set_rng_state(state: "torch.Tensor", device: Any = "cuda") -> None:
    if state.device.type != "cpu":
        raise TypeError("RNG state must be a torch.ByteTensor")
    state = state.contiguous()
    _native.pretend_set_state(_index(device), state.data_ptr(), state.numel())


def _manual_seed(seed: int, device: Any = None) -> None:
    _native.pretend_seed(_index(device), int(seed) & (2**64 - 1))


def _manual_seed_all(seed: int) -> None:
    for number in range(_count()):
        _manual_seed(seed, number)


def _count() -> int:
    return _devices


def _memory() -> int:
    return _limit or MEMORY


def _properties(device: Any = None) -> types.SimpleNamespace:
    major, minor = CAPABILITY
    return types.SimpleNamespace(name=NAME, major=major, minor=minor, total_memory=_memory(), multi_processor_count=132)


def _set_fraction(fraction: float, device: Any = None) -> None:
    limit(int(fraction * MEMORY))


def _warn_of_waits(mode: int | str) -> None:
    """`torch.cuda.set_sync_debug_mode`, without raising."""
    global _observer
    _observer = None if mode in (0, "default") else _OBSERVER(_warn)
    _native.pretend_observe(_observer)


def _warn(kind: bytes, operator: bytes) -> None:
    warnings.warn(f"called a synchronizing CUDA operation: {kind.decode()}, {operator.decode()}", stacklevel=2)


def _nothing(*_: Any, **__: Any) -> None:
    """Where there is nothing to do: kernels run at once, and no memory is cached."""


def _take_the_place_of_cuda() -> None:
    """`torch.cuda` as in a CUDA build, as far as froc and its libraries use it."""
    import torch

    if torch.backends.cuda.is_built():
        raise ImportError("this torch has CUDA")
    for name in (
        "_cuda_getCurrentRawStream",
        "_cuda_isCurrentStreamCapturing",
        "_cuda_clearCublasWorkspaces",
        "_cuda_getDevice",
    ):
        if not hasattr(torch._C, name):
            setattr(torch._C, name, lambda *_: 0)
    draws: dict[str, Callable[..., Any]] = {
        "manual_seed": _manual_seed, "manual_seed_all": _manual_seed_all,
        "get_rng_state": _get_rng_state, "set_rng_state": _set_rng_state,
        "get_rng_state_all": lambda: [_get_rng_state(number) for number in range(_count())],
    }  # fmt: skip
    functions: dict[str, Callable[..., Any]] = {
        **dict.fromkeys(
            ("_lazy_init", "init", "synchronize", "empty_cache", "ipc_collect"), _nothing
        ),
        "_lazy_call": lambda call, **_: call(),
        "is_available": lambda: True, "is_initialized": lambda: True, "_is_compiled": lambda: True, "_is_in_bad_fork": lambda: False,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": _count, "current_device": _index, "set_device": lambda device: _native.pretend_set_current(_index(device)),
        "device": _Current, "get_device_name": lambda device=None: NAME, "get_device_capability": lambda device=None: CAPABILITY,
        "get_device_properties": _properties,
        "mem_get_info": lambda device=None: (_memory() - allocated(_index(device)), _memory()),
        "memory_allocated": lambda device=None: allocated(_index(device)),
        "memory_reserved": lambda device=None: allocated(_index(device)),
        "max_memory_allocated": lambda device=None: peak(_index(device)),
        "max_memory_reserved": lambda device=None: peak(_index(device)),
        "reset_peak_memory_stats": lambda device=None: reset_peak(_index(device)),
        "set_per_process_memory_fraction": _set_fraction, "set_sync_debug_mode": _warn_of_waits,
    }  # fmt: skip
    for name, function in (draws | functions).items():
        setattr(torch.cuda, name, function)
    for name, function in draws.items():
        setattr(torch.cuda.random, name, function)
