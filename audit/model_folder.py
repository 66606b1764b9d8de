"""A model's folder: which of its files belong to the model, and whether it is closed.

Closed means that transformers' loaders use what was signed and nothing else: only safetensors, all complete and named
by the index, no adapter beside them, no configuration key that makes a loader run code or use other files. Files that a
model hub adds (`HUB_FILES`) are named and ignored; no loader reads them. A link counts as the regular file that it
points to: the hub's cache consists of such links. Messages name a file, never its content.
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
"""Files that a hub or its user adds to a model; older reports may have signed them."""
HUB_CACHE = ".cache/huggingface"
"""Where a hub's client keeps metadata of a downloaded folder."""
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
REDIRECTS = ("auto_map", "custom_pipelines", "transformers_weights")
"""Configuration keys that make a loader run code of the folder, or use another file than the usual one."""
KERNELS = "_implementation"
"""Part of configuration keys whose value, or a part of it, may name a repository of kernels (with a slash) to fetch and run."""
TOKENIZER_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "processor_config.json",
    "preprocessor_config.json",
)
"""Files whose keys become a tokenizer's arguments."""
TOKENIZER_FILES = re.compile(r"vocab|merges|(?!special_tokens_map_file).*_file")
"""Keys of a tokenizer's configuration whose text is a path to a file; loaders ignore the excepted one."""
TOKENIZER_ARGUMENTS = "init_inputs"
"""Key of a tokenizer's positional arguments, the first of which is its vocabulary's file."""
TOKENIZER_LISTS = re.compile(r".*_files")
"""Keys of lists of files in the folder; a slash leads out of it."""
MOST_BYTES = 128 * 2**20
"""Size limit of a file other than weights."""
JSON_BYTES = 8 * 2**20
"""Size limit of a JSON file, which takes twenty times as much memory."""
LARGE_JSON = {"tokenizer.json": 64 * 2**20, "vocab.json": 32 * 2**20, INDEX: 32 * 2**20}
"""Size limits of those that list every token or tensor."""
MEND = "give the folder as it was signed"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model folder.

    files: POSIX path -> digest of every file of the model, sorted.
    ignored: files that a hub added.
    """

    files: Mapping[str, str]
    ignored: tuple[str, ...]

    @property
    def beside(self) -> str:
        """Remark about the ignored files; empty if there are none."""
        return f"; beside it, of a model hub and not looked at: {', '.join(self.ignored)}" if self.ignored else ""


def read(folder: Path, covered: Collection[str] = ()) -> ModelFolder:
    """Every file of a model with its digest.

    covered: names that count whatever they are called.

    VerificationError for broken links, code, pickles and unusual names; InputError for what cannot be read and so not
    be verified.
    """
    names: list[str] = []
    ignored: list[str] = []
    try:
        for name in _walk(folder):
            hub = name not in covered and (name in HUB_FILES or name == HUB_CACHE)
            (ignored if hub else names).append(name)
        refuse_names(names)
        _refuse_other_names(names, covered)
        refuse_sizes(folder, names)
        files = {name: hashing.sha256_file(folder / name) for name in sorted(names, key=str.encode)}
    except OSError as error:
        raise InputError(f"cannot read all of {folder} ({error.strerror}); verify as someone who may") from error
    return ModelFolder(files, tuple(sorted(ignored)))


def _refuse_other_names(names: Sequence[str], covered: Collection[str]) -> None:
    """VerificationError, before anything is hashed, where file names differ from the signed ones."""
    missing, extra = sorted({*covered} - {*names}), sorted({*names} - {*covered})
    if covered and (missing or extra):
        raise VerificationError(
            "model-other-files",
            f"{len(missing)} file(s) missing, {len(extra)} not signed (such as {visible((extra or missing)[0])}); this is not the model that "
            "the report is about",
        )


def refuse_names(names: Sequence[str]) -> None:
    """VerificationError for names that are not plain relative paths, hold code, or collide where case is ignored."""
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


def refuse_sizes(folder: Path, names: Collection[str]) -> None:
    """VerificationError for large files and for broken headers, before any file is hashed or read whole."""
    for name in names:
        if name.endswith(".safetensors"):
            _tensors(folder / name)
        else:
            _refuse_large(folder / name)


def refuse_open(names: Collection[str]) -> None:
    """VerificationError for file names from which loaders would use something other than the model's weights."""
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
    """VerificationError where a file is not what its name says, or makes a loader use other files than the signed ones.

    names: of a folder that `refuse_open` accepts.
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
        _refuse_index(_json(folder / INDEX), [(tensor.name, name) for tensor, name in stored])


def of_weights(folder: Path, names: Collection[str]) -> str:
    """The digest of the weights in a folder's files (`froc.models.weights_digest`)."""
    return weights_digest.of_files(folder / name for name in sorted(names) if name.endswith(".safetensors"))


def _walk(folder: Path) -> Iterator[str]:
    """POSIX paths of all files; the hub's cache counts as one."""
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
    """A folder that cannot be listed may hold anything, so the error is raised."""
    raise error


def _tensors(path: Path) -> list[weights_digest.Stored]:
    try:
        return weights_digest.header(path)
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
    """VerificationError for a redirecting key anywhere in a configuration, parts included."""
    left = [document]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            if name in TOKENIZER_CONFIGS:
                _refuse_outside(name, part)
            for key, value in part.items():
                if _leads_elsewhere(key, value):
                    raise VerificationError(
                        "model-redirect",
                        f"{name} says {key}, which has loaders run code or take other files; take it out",
                    )
                left.append(value)


def _refuse_outside(name: str, document: Mapping[str, Any]) -> None:
    """VerificationError for a tokenizer file outside the folder, which can change while every signed byte stays the same."""
    for key, value in document.items():
        outside = (
            any(map(bool, _texts(value)))
            if key == TOKENIZER_ARGUMENTS
            else isinstance(value, str) and bool(value) and TOKENIZER_FILES.fullmatch(key)
        )
        if outside or (TOKENIZER_LISTS.fullmatch(key) and any("/" in text for text in _texts(value))):
            raise VerificationError(
                "model-outside-file",
                f"{name} names a file of its own under {visible(key)}, which loaders take from outside the folder; take it out",
            )


def _leads_elsewhere(key: str, value: Any) -> bool:
    """Whether a key makes loaders run or fetch something outside the folder. In a vocabulary such a word is a token with a number."""
    if KERNELS in key:
        return any("/" in text for text in _texts(value))
    return key in REDIRECTS and bool(value) and not isinstance(value, int)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a part of a document, keys included."""
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
    """Content as text; ValueError if it is none."""
    text = _bytes(path).decode("utf-8")
    if "\0" in text:
        raise ValueError
    return text


def _bytes(path: Path) -> bytes:
    _refuse_large(path)
    return path.read_bytes()


def _refuse_large(path: Path) -> None:
    """VerificationError for a large file, before anything of it is read."""
    most = LARGE_JSON.get(path.name, JSON_BYTES) if path.suffix == ".json" else MOST_BYTES
    if path.stat().st_size > most:
        raise VerificationError("model-file-too-large", f"{path.name} holds more than {most} bytes and is no weights")


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
