"""Checkpoints of training in progress: an interrupted run continues from the last one, to the same bit.

A state consists of tensors, numbers, and lists, tuples and dicts of them. Tensors go to safetensors files, the rest to
one JSON document, written last, that names them. No string kept by a method is written, since it could be a row.
Where processes divide a model, each writes its own parts, and the first the document, once all have written theirs. (torch's distributed
checkpoints would do the same, but their index is a pickle.)
"""

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from froc import __version__, hashing
from froc.atomic import write_text
from froc.errors import FrocError, InputError
from froc.models.base import read_weights, write_weights
from froc.models.process_group import (
    all_agree,
    decided_by_first,
    description,
    from_description,
    is_divided,
    own,
    rank,
    size,
)
from froc.models.trainable import Weights

EVERY = 300.0
"""Seconds between two saves.

FROC_SAVE_EVERY overrides it: 0 saves after every step at any cost; inf never saves and never continues from a save.
"""
COST = 0.02
"""Largest share of the time that saving may take: the slower a save, the longer until the next one."""
GUESS = 1e9
"""Assumed disk speed in bytes per second until the first save is timed."""
NAME = re.compile(r"[\w.\-/:]+", re.ASCII)
"""Keys that may be written: names of parameters, objectives or numbers, never sentences."""


class UnwritableError(FrocError):
    """A state holds something that is neither a number nor a tensor."""


def interval() -> float:
    """Seconds between two saves; InputError where FROC_SAVE_EVERY is not a duration."""
    raw_text = os.environ.get("FROC_SAVE_EVERY") or EVERY
    try:
        seconds = float(raw_text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise InputError(f"FROC_SAVE_EVERY={raw_text} is no time; give seconds, 0 for every step or inf for never")
    return seconds


def split_tensors(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """A state as a JSON document, and the detached tensors that it names. UnwritableError where that is impossible.

    A tensor that occurs several times stays one; numpy arrays and scalars count as tensors.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    storages: set[int] = set()

    def named(value: Tensor) -> str:
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise UnwritableError(f"it holds a tensor of {value.dtype}, {value.layout}")
        if id(value) not in names:
            names[id(value)] = f"t{len(names)}"
            local = own(value.detach()).contiguous()
            place = local.untyped_storage().data_ptr()
            # safetensors refuses tensors that share memory
            tensors[names[id(value)]] = local.clone() if place in storages else local
            storages.add(place)
        return names[id(value)]

    def walk(value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float):
            return value
        if kind is not Parameter and isinstance(value, Tensor) and is_divided(value):
            return {"divided": [named(value), description(value)]}
        # only plain tensors: a parameter would come back as a copy that training does not update
        if kind is Tensor:
            # sums follow memory order, so bit equality needs the same layout
            stride = torch.empty_like(value, device="meta").stride()
            return {"tensor": [named(value), value.device.type == "cpu", list(stride)]}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            held.append(torch.from_numpy(np.array(value)))
            return {"array" if isinstance(value, np.ndarray) else "scalar": named(held[-1])}
        if kind in (list, tuple):
            return {kind.__name__: [walk(item) for item in value]}
        if kind is dict and all(type(key) is int or (type(key) is str and NAME.fullmatch(key)) for key in value):
            return {"dict": [[key, walk(item)] for key, item in value.items()]}
        raise UnwritableError(f"it holds a {kind.__name__} that is neither numbers nor tensors by name")

    # keeps converted tensors alive, since their ids are used as keys
    held: list[Tensor] = []
    return walk(tree), tensors


def join_tensors(document: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """The state that `split_tensors` took apart, in new memory. device: of tensors that were not on the host."""
    made: dict[str, Tensor] = {}

    def walk(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind == "tensor":
            name, host, stride = inner
            if name not in made:
                stored = tensors[name]
                place = torch.device("cpu") if host else device
                made[name] = torch.empty_strided(stored.shape, stride, dtype=stored.dtype, device=place).copy_(stored)
            return made[name]
        if kind == "divided":
            name, known = inner
            if name not in made:
                made[name] = from_description(tensors[name].to(device, copy=True), known)
            return made[name]
        if kind in ("array", "scalar"):
            array = tensors[inner].clone().numpy()
            return array if kind == "array" else array[()]
        if kind == "dict":
            return {key: walk(item) for key, item in inner}
        return {"list": list, "tuple": tuple}[kind](map(walk, inner))

    return walk(document)


@dataclass(frozen=True)
class SavedState:
    """A saved checkpoint.

    metadata: plain JSON.
    state: as passed to `Saver.write`.
    fixed_weights: name -> weights that no longer change.
    """

    metadata: dict[str, Any]
    state: Any
    fixed_weights: dict[str, Weights]


class Saver:
    """Saves the state of configurations that train together, as often as that is cheap.

    folder: of the checkpoint files.
    identity: of what is trained; files of another identity, or of another version of froc or torch, are ignored.

    `notes` collects problems for the log; none of them ends training.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        self._known = hashing.sha256_json([__version__, torch.__version__, identity])
        self._every, self._last = interval(), time.monotonic()
        self._cost: float | None = None
        self._able = True
        self._files: set[str] = set()
        self._steps: list[int] | None = None
        self.notes: list[str] = []

    def for_config(self, place: int) -> "Saver":
        """The saver of one configuration, for when it is trained alone after all."""
        return Saver(self._folder / str(place), f"{self._identity}/{place}")

    @property
    def due(self) -> bool:
        """Whether it is time to save; by the clock of the first where several processes train together."""
        wait = max(self._every, (self._cost or 0.0) / COST) if self._every else 0.0
        return decided_by_first(self._able and time.monotonic() - self._last >= wait)

    def steps(self) -> list[int] | None:
        """Steps that each configuration had done at the last save; None without one."""
        document = self._document()
        return None if document is None else list(document["said"]["steps"])

    def read(self, device: torch.device) -> SavedState | None:
        """The last save; None without a readable one. An unreadable one is dropped."""
        document, saved = self._document(), None
        try:
            if document is not None and (document["device"], document["processes"]) == (device.type, size()):
                saved = self._read(document, device)
        except Exception as error:  # readers raise arbitrary errors on damaged files
            self.notes.append(f"its saved state is damaged ({type(error).__name__}): it began anew")
        if all_agree(saved is not None):
            return saved
        if saved is not None:
            self.notes.append("the saved state of another process of its group is damaged: it began anew")
        self.drop()
        return None

    def _read(self, document: Mapping[str, Any], device: torch.device) -> SavedState:
        files = {name: self._own_file(file) for name, file in document["lasting"].items()}
        tensors = read_weights(self._folder / self._own_file(document["tensors"]))
        lasting = {}
        for name, file in files.items():
            known = document["divided"].get(name, {})
            lasting[name] = {
                n: from_description(value.to(device, copy=True), known[n]) if n in known else value.clone()
                for n, value in read_weights(self._folder / file).items()
            }
        self._files = {"state.json", self._own_file(document["tensors"]), *files.values()}
        return SavedState(document["said"], join_tensors(document["tree"], tensors, device), lasting)

    def drop(self) -> None:
        """Forget the last save, before anything else is written under its names."""
        self._files = set()
        if rank() == 0:
            (self._folder / "state.json").unlink(missing_ok=True)

    def write(
        self, metadata: Mapping[str, Any], tree: Any, lasting: Mapping[str, Weights], device: torch.device
    ) -> None:
        """Save, unless no step was done since the last save.

        metadata: JSON with `steps`, a list of steps done.
        tree, lasting: `state` and `fixed_weights` of `SavedState`.
        """
        if metadata["steps"] == self._steps:
            return
        begin = time.monotonic()
        try:
            document, tensors = split_tensors(tree)
            if self._cost is None:
                self._cost = sum(tensor.nbytes for tensor in tensors.values()) / GUESS
                if not self.due:
                    return
            named = {
                "identity": self._known, "device": device.type, "processes": size(), "said": metadata, "tree": document,
                "tensors": f"at-{sum(metadata['steps'])}.safetensors", "lasting": {n: f"kept-{n}.safetensors" for n in lasting},
                "divided": {n: {k: description(v) for k, v in kept.items() if is_divided(v)} for n, kept in lasting.items()},
            }  # fmt: skip
            self._put(named, tensors, lasting)
            self._steps = list(metadata["steps"])
        except UnwritableError as error:
            self._able = False
            self.notes.append(f"cannot go on from its middle if it is interrupted: {error}")
        except Exception as error:  # for example a full disk: training can go on without a checkpoint
            note = f"its state could not be saved ({type(error).__name__})"
            self.notes += [] if note in self.notes else [note]
            with suppress(OSError):
                self._tidy()
        self._last = time.monotonic()
        self._cost = self._last - begin

    def _put(self, document: Mapping[str, Any], tensors: Weights, lasting: Mapping[str, Weights]) -> None:
        files = {name: self._own_file(file) for name, file in document["lasting"].items()}

        def parts() -> None:
            for name, file in files.items():
                if file not in self._files:
                    write_weights({n: own(value) for n, value in lasting[name].items()}, self._folder / file)
            write_weights(tensors, self._folder / self._own_file(document["tensors"]))

        _together(parts)
        # last, so that all files that it names exist
        _together(lambda: self._write_document(document))
        self._files = {"state.json", self._own_file(document["tensors"]), *files.values()}
        self._tidy()

    def _write_document(self, document: Mapping[str, Any]) -> None:
        if rank() == 0:
            write_text(self._folder / "state.json", json.dumps(document, sort_keys=True) + "\n")

    @staticmethod
    def _own_file(name: str) -> str:
        """The name, with this process's number where several write."""
        return name if size() == 1 else f"{rank()}-{name}"

    def _tidy(self) -> None:
        for path in self._folder.glob(self._own_file("*")):
            if path.is_file() and path.name not in self._files:
                path.unlink()

    def _document(self) -> dict[str, Any] | None:
        if math.isinf(self._every):
            return None
        try:
            document = json.loads((self._folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) and document.get("identity") == self._known else None


def _together(work: Callable[[], None]) -> None:
    """Do some work in each process that trains together; it raises in all where it fails in one."""
    failure: Exception | None = None
    try:
        work()
    except Exception as error:  # for example a full disk
        failure = error
    if not all_agree(failure is None):
        raise failure or OSError("another process of its group could not write")
