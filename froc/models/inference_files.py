"""The files beside a model's weights that decide how it behaves: configuration, generation settings, tokenizer, chat template.

They are compared after loading them with transformers, so that notation of other versions or tools is no difference.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from froc import hashing
from froc.models import weights_digest
from froc.models.base import Base

CONFIG, GENERATION = "config.json", "generation_config.json"
INERT = re.compile(
    r".*\.md|LICENSE(\.txt)?|\.gitattributes|\.cache/huggingface/.*|(digests|trainer_state|.*_results)\.json"
)
"""Names of files that no loader reads."""
NOTATION = (
    "transformers_version", "_name_or_path", "name_or_path", "torch_dtype", "dtype", "use_cache", "_from_model_config",
    "output_attentions", "output_hidden_states", "_attn_implementation_autoset", "unsloth_version", "unsloth_fixed",
)  # fmt: skip
"""Configuration keys that change no output: authorship, paths, precision, and what is returned or cached."""
TOKENIZER_NOTATION = (
    *NOTATION, "tokenizer_class", "backend", "is_local", "local_files_only", "padding", "padding_side", "pad_to_multiple_of",
    "pad_token_type_id", "truncation", "max_length", "stride", "truncation_strategy",
)  # fmt: skip
"""The same for tokenizer files: the class follows from what is loaded, and every call sets padding and truncation anew."""
DEFAULTS = {"truncation_side": "right"}
"""Settings that some writers add and that hold without being written, too."""


def digests(base: Base) -> dict[str, str]:
    """File name -> SHA-256 of everything that `save` writes beside the weights."""
    with _written(base) as place:
        return weights_digest.beside(hashing.sha256_files(place))


def first_difference(base: Base, folder: Path) -> str | None:
    """The first file beside a folder's weights that makes them behave differently from the base model's; None if none does.

    A file that the base model lacks and that loaders may read is a difference, and so is an unreadable one.
    """
    with _written(base) as place:
        ours, theirs = (weights_digest.beside(hashing.sha256_files(where)) for where in (place, folder))
        others = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        for name in (name for name in (CONFIG, GENERATION) if name in others):
            if not _alike(_config if name == CONFIG else _generation, place, folder):
                return name
        left = [name for name in others if name not in (CONFIG, GENERATION) and not INERT.fullmatch(name)]
        return _first_of_tokenizer(base, place, folder, left)


def _first_of_tokenizer(base: Base, place: Path, folder: Path, names: list[str]) -> str | None:
    """The first of the named files (which differ byte by byte) that changes the loaded tokenizer or chat template."""
    if not names:
        return None
    with tempfile.TemporaryDirectory() as again:
        try:
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(again)
        except Exception:  # whatever a library says of files that nobody has vouched for
            return names[0]
        written = hashing.sha256_files(place).keys() | hashing.sha256_files(Path(again)).keys()
        loaded = weights_digest.beside(dict.fromkeys(written, "")).keys() - {CONFIG, GENERATION}
        acting = [name for name in sorted(loaded) if _document(place / name) != _document(Path(again) / name)]
        if acting:
            return next((name for name in acting if name in names), names[0])
    # older loaders read these files instead of, or beside, those loaded here
    return next((name for name in names if name not in written and not _repeats(base, folder / name)), None)


def _repeats(base: Base, path: Path) -> bool:
    """Whether a file repeats what the base model's other tokenizer files say, or is the base model's own."""
    own = Path(base.name) / path.name
    if own.is_file() and hashing.sha256_file(own) == hashing.sha256_file(path):
        return True
    known: Mapping[str, Callable[[], Any]] = {
        "vocab.json": lambda: _without(base.tokenizer.get_vocab(), base.tokenizer.get_added_vocab()),
        "added_tokens.json": base.tokenizer.get_added_vocab,
        "special_tokens_map.json": lambda: base.tokenizer.special_tokens_map,
    }
    document = _document(path, ())
    if path.name not in known or not isinstance(document, dict):
        return False
    if path.name == "vocab.json":
        document = _without(document, base.tokenizer.get_added_vocab())
    contents = {key: value.get("content") if isinstance(value, dict) else value for key, value in document.items()}
    return bool(contents == known[path.name]())


def _without(vocabulary: Mapping[str, Any], added: Mapping[str, int]) -> dict[str, Any]:
    return {token: number for token, number in vocabulary.items() if token not in added}


def _alike(load: Callable[[Path], Mapping[str, Any]], place: Path, folder: Path) -> bool:
    try:
        return bool(_acting(load(place), NOTATION) == _acting(load(folder), NOTATION))
    except Exception:  # whatever a library says of files that nobody has vouched for
        return False


def _config(folder: Path) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    return loaded


def _generation(folder: Path) -> Mapping[str, Any]:
    """Generation settings of the folder's file, or those derived from its configuration."""
    if (folder / GENERATION).is_file():
        settings = GenerationConfig.from_pretrained(folder)
    else:
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    loaded: Mapping[str, Any] = settings.to_dict()
    return loaded


def _document(path: Path, notation: tuple[str, ...] = TOKENIZER_NOTATION) -> Any:
    """Content of a tokenizer file; None where it is absent or unreadable."""
    try:
        data = path.read_bytes()
        return _acting(json.loads(data), notation) if path.suffix == ".json" else data
    except (OSError, ValueError, RecursionError):
        return None


def _acting(document: Any, notation: tuple[str, ...]) -> Any:
    """A document without keys that change no output, and without null values."""
    if isinstance(document, dict):
        return {
            # a vocabulary's tokens are not settings
            key: value if key == "vocab" else _acting(value, notation)
            for key, value in document.items()
            if value is not None and key not in notation and DEFAULTS.get(key) != value
        }
    return [_acting(part, notation) for part in document] if isinstance(document, list) else document


@contextmanager
def _written(base: Base) -> Iterator[Path]:
    """Context manager: a folder as `save` writes it, with one dummy tensor as weights."""
    model: Any = base.model
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place, state_dict={"none": torch.zeros(1)})
        base.tokenizer.save_pretrained(place)
        yield Path(place)
