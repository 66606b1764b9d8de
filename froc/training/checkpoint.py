"""Checkpoints of training in progress: an interrupted run continues from the last one, to the same bit.

A state consists of tensors, numbers, and lists, tuples and dicts of them. Tensors go to safetensors files, the rest to
one JSON document, written last, that names them. No string kept by a method is written, since it could be a row.
"""

import json
import math
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from froc import __version__, hashing
from froc.atomic import write_text
from froc.errors import FrocError, InputError
from froc.models.base import read_weights, write_weights
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
            whole = value.detach().contiguous()
            place = whole.untyped_storage().data_ptr()
            # safetensors refuses tensors that share memory
            tensors[names[id(value)]] = whole.clone() if place in storages else whole
            storages.add(place)
        return names[id(value)]

    def walk(value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float):
            return value
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
        """Whether it is time to save."""
        wait = max(self._every, (self._cost or 0.0) / COST) if self._every else 0.0
        return self._able and time.monotonic() - self._last >= wait

    def steps(self) -> list[int] | None:
        """Steps that each configuration had done at the last save; None without one."""
        document = self._document()
        return None if document is None else list(document["said"]["steps"])

    def read(self, device: torch.device) -> SavedState | None:
        """The last save; None without a readable one. An unreadable one is dropped."""
        document = self._document()
        try:
            if document is not None and document["device"] == device.type:
                tensors = read_weights(self._folder / document["tensors"])
                kept = {name: read_weights(self._folder / file) for name, file in document["lasting"].items()}
                lasting = {name: {n: value.clone() for n, value in weights.items()} for name, weights in kept.items()}
                saved = SavedState(document["said"], join_tensors(document["tree"], tensors, device), lasting)
                self._files = {"state.json", document["tensors"], *document["lasting"].values()}
                return saved
        except Exception as error:  # readers raise arbitrary errors on damaged files
            self.notes.append(f"its saved state is damaged ({type(error).__name__}): it began anew")
        self.drop()
        return None

    def drop(self) -> None:
        """Forget the last save, before anything else is written under its names."""
        self._files = set()
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
                "identity": self._known, "device": device.type, "said": metadata, "tree": document,
                "tensors": f"at-{sum(metadata['steps'])}.safetensors", "lasting": {n: f"kept-{n}.safetensors" for n in lasting},
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
        for name, file in document["lasting"].items():
            if file not in self._files:
                write_weights(lasting[name], self._folder / file)
        write_weights(tensors, self._folder / document["tensors"])
        # last, so that all files that it names exist
        write_text(self._folder / "state.json", json.dumps(document, sort_keys=True) + "\n")
        self._files = {"state.json", document["tensors"], *document["lasting"].values()}
        self._tidy()

    def _tidy(self) -> None:
        for path in self._folder.glob("*"):
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
