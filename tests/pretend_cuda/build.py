"""Builds the pretend device's two libraries against the installed torch, once per torch and source text.

    python -m tests.pretend_cuda.build

prints their folder. It lies in the machine's folder for temporary files, so that runs of the tests share it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ACCELERATOR, DEVICE, HOST_SCALARS = "libaccelerator.so", "libdevice.so", "host_scalars.txt"
"""What is built: libraries, and the names of operators that take tensors without dimensions from the host."""


class UnavailableError(Exception):
    """Why the pretend device cannot be built here."""


def built() -> Path:
    """The folder of the libraries; UnavailableError where this machine cannot build them."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if not sys.platform.startswith("linux"):
        raise UnavailableError("the pretend device needs Linux")
    if compiler is None:
        raise UnavailableError("no C++ compiler is installed")
    torch = _torch()
    cache = _own_folder()
    folder = cache / _identity()
    with (cache / "lock").open("w") as lock:
        # other worker processes wait for the one that builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as place:
                _build(compiler, torch, Path(place) / "made")
                (Path(place) / "made").rename(folder)
    return folder


def _torch() -> Path:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise UnavailableError("torch is not installed")
    folder = Path(spec.origin).parent
    if (folder / "lib" / "libtorch_cuda.so").exists():
        raise UnavailableError("torch was built with CUDA")
    if not (folder / "lib" / "libtorch_cpu.so").exists() or not (folder / "include" / "ATen").exists():
        raise UnavailableError("torch has no headers to build against")
    return folder


def _own_folder() -> Path:
    """A folder that nobody else can write to: what lies in it is loaded as code."""
    folder = Path(tempfile.gettempdir()) / f"froc-pretend-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise UnavailableError(f"{folder} belongs to somebody else")
    return folder


def _identity() -> str:
    sources = [*sorted((HERE / "native").glob("*.cpp")), Path(__file__)]
    text = b"".join(path.read_bytes() for path in sources)
    return f"torch-{version('torch')}-{hashlib.sha256(text).hexdigest()[:12]}"


def _build(compiler: str, torch: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / HOST_SCALARS).write_text("\n".join(_host_scalar_operators()) + "\n", encoding="utf-8")
    plain = [compiler, "-std=c++20", "-O1", "-g0", "-fPIC", "-shared"]
    headers = [f"-isystem{torch / 'include'}", f"-isystem{torch / 'include/torch/csrc/api/include'}"]
    libraries = [f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
    for words in (
        [*plain, str(HERE / "native/accelerator.cpp"), "-o", str(folder / ACCELERATOR)],
        [*plain, *headers, str(HERE / "native/device.cpp"), "-o", str(folder / DEVICE), *libraries],
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the pretend device does not compile: {done.stderr[-3000:]}")


def _host_scalar_operators() -> list[str]:
    """From torch's own list: what its CUDA build does not check the devices of."""
    import yaml

    spec = find_spec("torchgen")
    if spec is None or spec.origin is None:
        raise UnavailableError("torch's list of operators is not installed")
    listed = Path(spec.origin).parent / "packaged/ATen/native/native_functions.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    functions = yaml.load(listed.read_text(encoding="utf-8"), Loader=loader)
    return [f"aten::{f['func'].split('(')[0]}" for f in functions if f.get("device_check") == "NoCheck"]


if __name__ == "__main__":
    try:
        print(built())
    except UnavailableError as error:
        sys.exit(str(error))
