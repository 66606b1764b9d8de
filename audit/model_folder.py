"""A model's folder: which of its files are the model's, and whether it is closed.

Closed means that what a loader of transformers takes is what was signed, and nothing else: safetensors alone, all of them whole and
named by the index, no adapter beside them, no word that has a loader run code or take other files. Files that a model hub puts
beside a model (`HUB_FILES`) are named and left out of account; loaders read none of them. A link counts as the regular file in which
it ends: the hub's cache is made of such links. Messages name a file, never its content.
"""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from froc import hashing
from froc.audit import expected_tensors
from froc.errors import InputError, VerificationError
from froc.models import weights_digest
from froc.visible import visible

"""What a model folder may hold: weights without code, tokenizer and configuration. Pickles and programs are refused."""
HUB_FILES = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", ".gitattributes")
"""What a hub or its user puts beside a model; in a report only where an older version signed it."""
HUB_CACHE = ".cache/huggingface"
"""Where a hub's client keeps what it knows about a folder that it downloaded."""
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
REDIRECTS = ("auto_map", "custom_pipelines", "transformers_weights")
"""Words of a configuration by which a loader runs code of the folder, or takes another file than the usual one."""
KERNELS = "_implementation"
"""How words end whose value, with a slash in it, or that of a part, is a repository of kernels that loaders fetch and run."""
MOST_BYTES = 128 * 2**20
"""Of a file that is no weights."""
MEND = "give the folder as it was signed"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True)
class ModelFolder:
    """files: POSIX path -> digest of every file of the model, sorted; ignored: what a hub put beside them."""

    files: Mapping[str, str]
    ignored: tuple[str, ...]

    @property
    def beside(self) -> str:
        """What is to be said of the files that were left out of account; empty where there are none."""
        return f"; beside it, of a model hub and not looked at: {', '.join(self.ignored)}" if self.ignored else ""


def read(folder: Path, covered: Collection[str] = ()) -> ModelFolder:
    """Every file of a model with its digest. covered: names that count, whatever they are called.

    Raises VerificationError for links that end nowhere, code, pickles and odd names; InputError for what cannot be read: what is
    not seen is not verified.
    """
    names: list[str] = []
    ignored: list[str] = []
    try:
        for name in _walk(folder):
            hub = name not in covered and (name in HUB_FILES or name == HUB_CACHE)
            (ignored if hub else names).append(name)
        refuse_names(names)
        _refuse_other_names(names, covered)
        for name in (name for name in names if not name.endswith(".safetensors")):
            _refuse_large(folder / name)
        files = {name: hashing.sha256_file(folder / name) for name in sorted(names, key=str.encode)}
    except OSError as error:
        raise InputError(f"cannot read all of {folder} ({error.strerror}); verify as someone who may") from error
    return ModelFolder(files, tuple(sorted(ignored)))


def _refuse_other_names(names: Sequence[str], covered: Collection[str]) -> None:
    """VerificationError before anything is hashed: a folder of other files is another model."""
    missing, extra = sorted({*covered} - {*names}), sorted({*names} - {*covered})
    if covered and (missing or extra):
        raise VerificationError(
            "model-other-files",
            f"{len(missing)} file(s) missing, {len(extra)} not signed (such as {visible((extra or missing)[0])}); this is not the model that "
            "the report is about",
        )


def refuse_names(names: Sequence[str]) -> None:
    """VerificationError for names that are no plain relative path, hold code, or collide where case is ignored."""
    for name in names:
        if not name.endswith(weights_digest.FILE_SUFFIXES):
            raise VerificationError(
                "model-code-or-pickle",
                f"{visible(name)} has a suffix other than {', '.join(weights_digest.FILE_SUFFIXES)}",
            )
        if len(name) > 255 or not _NAME.fullmatch(name):
            raise VerificationError("subject-name-or-digest", "a model file's name is no plain relative path")
    if len({name.casefold() for name in names}) != len(names):
        raise VerificationError("subject-duplicate", "two model files have the same name where case is ignored")


def refuse_open(names: Collection[str]) -> None:
    """VerificationError for a set of files of which loaders take others than the model's weights."""
    adapter = next((name for name in names if PurePosixPath(name).name in ADAPTER), None)
    if adapter is not None:
        raise VerificationError(
            "model-adapter",
            f"{adapter} is an adapter's, which loaders put into the weights unasked; merge it and save the merged model",
        )
    index = next((name for name in sorted(names) if name.endswith(".index.json") and name != INDEX), None)
    if index is not None:
        raise VerificationError(
            "model-second-index",
            f"{index} is no {INDEX}: by another index loaders take other files; leave it out",
        )
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    below = next((name for name in weights if "/" in name), None)
    if below is not None:
        raise VerificationError(
            "model-weights-below",
            f"{below} lies in a folder of its own, where loaders look for none; save the model again",
        )
    if not weights:
        raise VerificationError(
            "model-no-weights", f"no file of the model holds weights; {MEND}, with its *.safetensors"
        )
    if weights != [WEIGHTS] and (INDEX not in names or WEIGHTS in weights):
        extra = next(name for name in weights if name != WEIGHTS)
        raise VerificationError(
            "model-second-weights",
            f"{extra} is no {WEIGHTS} and belongs to no {INDEX}, so that loaders take other weights; save the model again",
        )
    if CONFIG not in names:
        raise VerificationError("model-no-config", f"the model has no {CONFIG}; save the model again")


def refuse_content(folder: Path, names: Collection[str]) -> None:
    """VerificationError where a file is not what its name says, or has a loader take others than the signed ones.

    names: of a folder that `refuse_open` lets pass.
    """
    stored = []
    for name in sorted(names):
        if name.endswith(".safetensors"):
            stored += [(tensor, name) for tensor in _tensors(folder / name)]
        elif name.endswith(".json"):
            _refuse_redirect(name, _json(folder / name))
        else:
            _refuse_disguise(folder / name)
    if not stored:
        raise VerificationError("model-no-weights", f"the files of the model hold no tensor; {MEND}")
    expected_tensors.check(_json(folder / CONFIG), [tensor for tensor, _ in stored])
    if INDEX in names:
        _refuse_index(_json(folder / INDEX), stored)


def of_weights(folder: Path, names: Collection[str]) -> str:
    """The digest of the weights that a folder's files hold (`froc.models.weights_digest`)."""
    return weights_digest.of_files(folder / name for name in sorted(names) if name.endswith(".safetensors"))


def _walk(folder: Path) -> Iterator[str]:
    """POSIX paths of all files, the hub's cache as one."""
    for place, folders, files in os.walk(folder, onerror=_raise):
        below = Path(place).relative_to(folder)
        for name in (*folders, *files):
            path, known = Path(place) / name, (below / name).as_posix()
            kind = path.lstat().st_mode
            if stat.S_ISLNK(kind) and path.is_file():
                kind = stat.S_IFREG
            if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
                raise VerificationError(
                    "model-symlink", "the model folder holds a special file, or a link that ends in no regular file"
                )
            if stat.S_ISREG(kind) or known == HUB_CACHE:
                yield known
        folders[:] = [name for name in folders if (below / name).as_posix() != HUB_CACHE]


def _raise(error: OSError) -> None:
    """A folder that cannot be listed may hold anything."""
    raise error


def _tensors(path: Path) -> list[str]:
    try:
        return [tensor.name for tensor in weights_digest.header(path)]
    except InputError as error:
        raise VerificationError("model-weights-file", str(error)) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise VerificationError("model-json", f"{path.name} is no JSON that has one meaning; {MEND}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError
    return made


def _refuse_redirect(name: str, document: Any) -> None:
    """Wherever the word stands: configurations hold those of parts. A vocabulary may hold it as a token, with a number."""
    left = [document]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            for key, value in part.items():
                if _leads_elsewhere(key, value):
                    raise VerificationError(
                        "model-redirect",
                        f"{name} says {key}, which has loaders run code or take other files; take it out",
                    )
                left.append(value)


def _leads_elsewhere(key: str, value: Any) -> bool:
    """Whether a word has loaders run or fetch what is not in the folder. A vocabulary may hold it as a token, with a number."""
    if key.endswith(KERNELS):
        return any("/" in text for text in _texts(value))
    return key in REDIRECTS and bool(value) and not isinstance(value, int)


def _texts(value: Any) -> Iterator[str]:
    """Every text of a part of a document, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)


def _refuse_disguise(path: Path) -> None:
    kind = weights_digest.disguise(_bytes(path)[:512])
    if kind is not None:
        raise VerificationError("model-disguised", f"{path.name} is {kind}, under another name; {MEND}")
    if path.suffix != ".model":
        try:
            _text(path)
        except ValueError as error:
            raise VerificationError("model-disguised", f"{path.name} is no text; {MEND}") from error


def _text(path: Path) -> str:
    """ValueError for what is no text."""
    text = _bytes(path).decode("utf-8")
    if "\0" in text:
        raise ValueError
    return text


def _bytes(path: Path) -> bytes:
    _refuse_large(path)
    return path.read_bytes()


def _refuse_large(path: Path) -> None:
    """VerificationError before anything of the file is read."""
    if path.stat().st_size > MOST_BYTES:
        raise VerificationError(
            "model-file-too-large", f"{path.name} holds more than {MOST_BYTES} bytes and is no weights"
        )


def _refuse_index(document: Any, stored: Sequence[tuple[str, str]]) -> None:
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict):
        raise VerificationError("model-index", f"{INDEX} has no weight_map; save the model again")
    files = {file for _, file in stored}
    if not all(isinstance(file, str) and file in files for file in weight_map.values()):
        raise VerificationError(
            "model-index-outside", f"{INDEX} names a file that is none of the model's; save the model again"
        )
    if sorted(weight_map.items()) != sorted(stored):
        raise VerificationError(
            "model-index",
            f"{INDEX} lacks a tensor of the files, or names one that is not where it says; save the model again",
        )
