"""The base model: loaded as safetensors, restored in memory between trials, saved again. No pickle, no remote code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from froc import hashing
from froc.atomic import replacing
from froc.errors import InputError
from froc.models import adapters, architecture, device_map, process_group, sharding, weights_digest
from froc.models.attention import Attention
from froc.models.autocast import autocast
from froc.models.device_map import devices_of
from froc.models.experts import refuse_packed_experts
from froc.models.hooks import blocks
from froc.models.model_name import refuse_absent
from froc.models.narrowing import try_narrowing
from froc.models.onednn import through_onednn
from froc.models.trainable import TrainableParameters, parse

# transformers' progress bars would disturb ours on standard error
transformers_logging.disable_progress_bar()
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Base:
    """The model before unlearning.

    name: folder or hub id.
    model: the single copy, which trials train in place.
    tokenizer: its tokenizer.
    trainable: the parameters that trials may change.
    digest: SHA-256 over the base parameters' names and bytes.
    notes: choices made when it was loaded.
    measured_in: precision of matrix products in measuring; empty for that of the parameters.
    deterministic: whether it is computed to the same bits each time, see `froc.models.determinism`.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    trainable: TrainableParameters
    digest: str
    notes: tuple[str, ...] = ()
    measured_in: str = ""
    deterministic: bool = False

    @property
    def dtype(self) -> str:
        """Name of the parameters' dtype, as `load` takes it."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """The model's device; the first where it lies on several, which has its inputs and outputs."""
        return next(self.model.parameters()).device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices of the model."""
        return devices_of(self.model)

    @property
    def environment(self) -> dict[str, str]:
        """How it is computed, as plans and re-executions say it."""
        return {
            "measured-in": self.measuring_dtype, "attention": str(self.model.config.get_text_config()._attn_implementation),
            **({"deterministic": "yes"} if self.deterministic else {}),
            **({"devices": str(len(self.devices))} if len(self.devices) > 1 else {}),
            **({"sharded": str(process_group.size())} if process_group.joined() else {}),
        }  # fmt: skip

    @property
    def measuring_dtype(self) -> str:
        """Name of the precision in which matrix products are computed while the model is measured."""
        return self.measured_in or self.dtype

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Context of every pass that measures this model, the base as its candidates; log-softmaxes stay float32."""
        half = self.measuring_dtype != self.dtype
        # without a cache, since attacks change parameters between passes
        with autocast(self.device, torch.bfloat16 if half else None, cached=False):
            yield

    def restore(self, seed: int = 0, adapter_index: int = 0) -> None:
        """Restore the base model in memory.

        seed: of the adapters' initial values, which do not change the model's function yet.
        """
        self.trainable.activate([adapter_index])
        self.trainable.reset(seed, adapter_index)


def refuse_absent_device(device: str) -> None:
    """InputError for a device, or one of several, that torch does not have on this machine."""
    for part in device_map.named(device):
        _refuse_absent(part)


def _refuse_absent(device: str) -> None:
    kind, _, number = device.partition(":")
    try:
        torch.device(device)
        backend: Any = getattr(torch, kind, None) if kind != "mps" else torch.backends.mps
        there = kind == "cpu" or bool(backend.is_available())
        count = backend.device_count() if there and hasattr(backend, "device_count") else 1
    except (RuntimeError, AttributeError) as error:
        raise InputError(f"--device {device} is no device of torch; write cpu, cuda, cuda:1 or mps") from error
    if not there:
        raise InputError(
            f"--device {device}: torch {torch.__version__} sees no {kind} device here; install the build of torch for it "
            "(https://pytorch.org/get-started), or leave --device out"
        )
    if int(number or 0) >= count:
        raise InputError(f"--device {device}: there are {count} {kind} devices, numbered from 0")


def default_device() -> str:
    """cuda if available, else cpu (mps is slower than the CPU for small batches and not deterministic)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def natural_dtype(device: str, train: str) -> str:
    """Default dtype of parameters: bfloat16 for a frozen base on cuda, else float32, since bfloat16 loses small updates."""
    return "bfloat16" if device.startswith("cuda") and train.startswith("lora") else "float32"


def measured_as(base: Base, precision: str | None) -> Base:
    """The base with matrix products of measuring in a precision; None for that of the parameters. InputError where it has none."""
    if precision is None:
        return base
    if base.dtype not in ("float32", precision):
        raise InputError(
            f"--measure-dtype {precision} does not go with parameters in {base.dtype}, which are measured as they are; leave it out, "
            "or give --dtype float32"
        )
    return replace(base, measured_in=precision)


def load(
    name: str, *, device: str | None = None, dtype: str | None = None, train: str = "full", n_adapters: int = 1,
    adapter_base: str | None = None, attention: str | None = None, deterministic: bool = False,
) -> Base:  # fmt: skip
    """Load a causal language model from a folder or the hub; an adapter is merged into the base model that it names.

    device: cuda if available, else cpu, by default; cuda:0+cuda:1 divides the blocks among several.
    dtype: of the parameters; by default bfloat16 on cuda where only adapters train, else float32.
    train, n_adapters: see `froc.models.trainable.parse`.
    adapter_base: the base model in use, for adapters of it.
    attention: see `froc.models.attention.Attention`; by default the fastest that the model supports.
    deterministic: only what computes to the same bits each time.

    InputError for a folder without safetensors (pickled weights can run code), for quantised weights (they can be
    neither trained in small steps nor mixed), and for models that are no causal language models.
    """
    refuse_absent(name)
    place = device or default_device()
    refuse_absent_device(place)
    kind: torch.dtype = getattr(torch, dtype or natural_dtype(place, train))
    wanted = Attention(attention, place, kind, deterministic)
    wanted.check()
    adapter = adapters.read(Path(name))
    with process_group.in_turn():
        if adapter is None:
            model, notes = _read(name, kind, n_adapters, wanted)
        else:
            model = adapter.merged(lambda base: _read(base, kind, n_adapters, wanted)[0], adapter_base)
            notes = (adapter.note,)
        if not process_group.joined():
            # processes that divide a model take its parts to their devices: none might hold all of it
            notes += wanted.make_faster(device_map.place_on(model, place))
        # after the model, whose refusals say more
        made = wrap(name, model, _tokenizer(name, adapter, adapter_base), train, n_adapters)
    return replace(made, notes=notes, deterministic=deterministic)


def wrap(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: str = "full", n_adapters: int = 1
) -> Base:
    """A `Base` from a model in memory; InputError for an unsupported architecture."""
    model.eval()
    blocks(model)
    architecture.refuse_acausal(name, model)
    if not process_group.on_gpus():
        through_onednn(model)
    try_narrowing(model)
    known = _digest(dict(model.named_parameters()))
    divide = sharding.divided if process_group.joined() else parse
    trainable = divide(train, model, n_adapters)
    return Base(name, model, tokenizer, trainable, known)


def _read(
    name: str, kind: torch.dtype, n_adapters: int, attention: Attention
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    folder = Path(name)
    if folder.is_dir():
        _refuse_pickle(folder)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        architecture.refuse_config(name, config)
        refuse_packed_experts(name, config, n_adapters)
        return architecture.read(name, config, kind, attention.on_host)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from error


def _tokenizer(name: str, adapter: adapters.Adapter | None, adapter_base: str | None) -> PreTrainedTokenizerBase:
    """The adapter's own tokenizer, or its base model's."""
    if adapter is not None and not (Path(name) / "tokenizer_config.json").is_file():
        name = adapter.base(adapter_base)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return tokenizer
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    first = str(error).strip().partition("\n")[0]
    if not Path(name).exists():
        return InputError(
            f"there is no folder {name} in {Path.cwd()}, and no model of that name could be had from the hub ({first}); mend "
            "the path, or give a hub id"
        )
    return InputError(f"cannot load the model {name}: {first}")


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write parameters as one safetensors file, atomically."""
    with replacing(path) as part:
        save_file({name: value.contiguous() for name, value in weights.items()}, part)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read parameters written by `write_weights`."""
    return load_file(path)


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """The parameters in all safetensors files of a saved model."""
    return {name: value for path in _files(folder) for name, value in load_file(path).items()}


def refuse_unlike(base: Base, folder: Path) -> None:
    """InputError unless a folder's model can replace all of the base's parameters, by name and shape."""
    if not folder.is_dir():
        raise InputError(
            f"the retrained model's folder {folder} does not exist; mend the path, or leave the method out"
        )
    _refuse_pickle(folder)
    wanted = {name: tuple(p.shape) for name, p in base.model.named_parameters()}
    if set(base.trainable.parameters()) != set(wanted):
        raise InputError(
            "a retrained model takes the place of all parameters: give --train full, or leave the method out"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for path in _files(folder):
            with safe_open(path, framework="pt") as file:
                names: list[str] = file.keys()
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} holds no readable weights; save the retrained model again") from error
    wrong = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if wrong:
        raise InputError(
            f"{folder}: {wrong[0]} is {shapes.get(wrong[0], 'missing')}, in the base model {wanted[wrong[0]]};"
            " give a retrained model of the base's architecture, saved as the base was"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def save(base: Base, folder: Path) -> None:
    """Save the current model with its tokenizer; `AutoModelForCausalLM.from_pretrained(folder)` loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    saved: Any = base.model
    saved.save_pretrained(folder, safe_serialization=True, state_dict=base.trainable.merged_state_dict())
    base.tokenizer.save_pretrained(folder)


def written(base: Base) -> Mapping[str, torch.Tensor]:
    """The tensors that `save` would write now, by their names in the files: adapters merged, tied tensors once."""
    model: Any = base.model
    state = dict(base.trainable.merged_state_dict() or model.state_dict())
    for name in model._keys_to_ignore_on_save or ():
        state.pop(name, None)
    kept: Mapping[str, torch.Tensor] = revert_weight_conversion(
        model, remove_tied_weights_from_state_dict(state, model)
    )
    return kept


def digest_of(base: Base) -> str:
    """The weights digest (`froc.models.weights_digest`) of the folder that `save` would write now."""
    return weights_digest.of_tensors({name: _of_tensor(value) for name, value in written(base).items()})


def _refuse_pickle(folder: Path) -> None:
    if _files(folder):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    content = f"{pickled[0]} is a pickle, which can run code" if pickled else "there are no weights in it"
    raise InputError(
        f"{folder} holds no *.safetensors file: {content}; save it with save_pretrained(safe_serialization=True)"
    )


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    return hashing.sha256_tree({name: _of_tensor(value) for name, value in weights.items()})


def _of_tensor(value: torch.Tensor) -> str:
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashing.sha256_parts(weights_digest.prefix(str(value.dtype), value.shape), raw.data)
