"""A base model, restored in memory between trials and saved as safetensors. No pickle, no remote code."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from froc import digest
from froc.errors import InputError
from froc.linear import through_onednn
from froc.scope import Scope, parse

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# their bars on standard error would run through ours
transformers_logging.disable_progress_bar()
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Base:
    """The model before unlearning.

    model: the one copy that trials train in place. tokenizer: its tokenizer. scope: what of it trials may change.
    digest: SHA-256 over the base parameters' names and bytes.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    scope: Scope
    digest: str

    @property
    def dtype(self) -> str:
        """Of its parameters, by the name that `load` takes."""
        return next(name for name, kind in DTYPES.items() if kind == next(self.model.parameters()).dtype)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    def restore(self, seed: int = 0, member: int = 0) -> None:
        """Be the base model again, in memory. seed: of adapters, whose first values change nothing yet."""
        self.scope.activate([member])
        self.scope.reset(seed, member)


def default_device() -> str:
    """cuda where there is one, else the CPU (mps is slower than it for small batches and lacks determinism)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def natural_dtype(device: str, train: str) -> str:
    """Of parameters, where nothing is said: small updates are lost in bfloat16, so only a frozen base is stored in it."""
    return "bfloat16" if device.startswith("cuda") and train.startswith("lora") else "float32"


def load(
    name: str, *, device: str | None = None, dtype: str | None = None, train: str = "full", members: int = 1
) -> Base:
    """Load a causal language model from a folder or the hub.

    dtype: of the parameters; float32 unless said otherwise, bfloat16 on cuda where only adapters train: small updates
    are lost in bfloat16 parameters. train, members: see `froc.scope.parse`.

    Raises InputError for a folder without safetensors: pickled weights can run code. And for quantised weights: they can
    neither be trained in small steps nor mixed, since between rounded weights there is no line.
    """
    folder = Path(name)
    if folder.is_dir():
        _refuse_pickle(folder)
    elif name.startswith((".", "/", "~")):
        raise InputError(f"the model folder {name} does not exist; give a folder or a hub id")
    place = device or default_device()
    kind = DTYPES[dtype or natural_dtype(place, train)]
    try:
        _refuse_quantised(name, AutoConfig.from_pretrained(name, trust_remote_code=False))
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=kind, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot load the model {name}: {first}") from error
    return wrap(name, model.to(place), tokenizer, train, members)


def wrap(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: str = "full", members: int = 1
) -> Base:
    """Take a model that is already in memory as the base of a search."""
    model.eval()
    through_onednn(model)
    known = _digest(dict(model.named_parameters()))
    return Base(name, model, tokenizer, parse(train, model, members), known)


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write parameters as one safetensors file; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in weights.items()}, part)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read parameters written by `write_weights`."""
    return load_file(path)


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """The parameters that a saved model's files hold together."""
    return {name: value for path in _files(folder) for name, value in load_file(path).items()}


def refuse_unlike(base: Base, folder: Path) -> None:
    """InputError where a folder's model cannot take the place of the base's parameters: all of them, by name and shape."""
    if not folder.is_dir():
        raise InputError(
            f"the retrained model's folder {folder} does not exist; mend the path, or leave the method out"
        )
    _refuse_pickle(folder)
    wanted = {name: tuple(p.shape) for name, p in base.model.named_parameters()}
    if set(base.scope.own()) != set(wanted):
        raise InputError(
            "a retrained model takes the place of all parameters: give --train full, or leave the method out"
        )
    found: dict[str, tuple[int, ...]] = {}
    try:
        for path in _files(folder):
            with safe_open(path, framework="pt") as file:
                names: list[str] = file.keys()
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} holds no readable weights; save the retrained model again") from error
    wrong = [name for name, shape in wanted.items() if found.get(name) != shape]
    if wrong:
        raise InputError(
            f"{folder}: {wrong[0]} is {found.get(wrong[0], 'missing')}, in the base model {wanted[wrong[0]]};"
            " give a retrained model of the base's architecture, saved as the base was"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def save(base: Base, folder: Path) -> None:
    """Save the model as it stands, with its tokenizer: `AutoModelForCausalLM.from_pretrained(folder)` loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    saved: Any = base.model
    saved.save_pretrained(folder, safe_serialization=True, state_dict=base.scope.written())
    base.tokenizer.save_pretrained(folder)


def _refuse_quantised(name: str, config: Any) -> None:
    found = getattr(config, "quantization_config", None)
    if found is not None:
        kind = found.get("quant_method", "") if isinstance(found, dict) else ""
        raise InputError(
            f"{name} is quantised{f' ({kind})' if kind else ''}: its weights can be neither trained in small steps nor mixed; "
            "give the unquantised model (what quantisation brings back is measured by --budget quantized=0.2)"
        )


def _refuse_pickle(folder: Path) -> None:
    if _files(folder):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    found = f"{pickled[0]} is a pickle, which can run code" if pickled else "there are no weights in it"
    raise InputError(
        f"{folder} holds no *.safetensors file: {found}; save it with save_pretrained(safe_serialization=True)"
    )


def _digest(weights: dict[str, torch.Tensor]) -> str:
    parts = {}
    for name, value in weights.items():
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        parts[name] = digest.of_bytes(f"{value.dtype} {tuple(value.shape)} ".encode() + raw)
    return digest.of_tree(parts)
