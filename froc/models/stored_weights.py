"""Kept parameters, read from their safetensors file a tensor at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


class StoredWeights(Mapping[str, torch.Tensor]):
    """Parameters written by `froc.models.base.write_weights`, each read when it is asked for, so that the host never holds all of them."""

    def __init__(self, path: Path) -> None:
        opened: Any = safe_open(path, framework="pt")
        self._file, self._names = opened, frozenset(opened.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        value: torch.Tensor = self._file.get_tensor(name)
        return value

    def __contains__(self, name: object) -> bool:
        # a mapping would read the tensor to tell
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)
