"""Formats: one file each; every format reads somebody's files into a loss table (`froc.losses.SCHEMA`).

A bad row is an InputError with file, row and mend. Values are checked once more by `froc.losses.check`. Logs of evaluation
tools hold scores, not losses: `froc.formats._logs` makes losses of them by rules that the user states.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl


@dataclass(frozen=True)
class Source:
    """A file that losses come from. file: its path below the folder that was given. sha256: of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Read:
    """losses: a raw loss table. sources: configuration -> its files, where each has its own. notes: what a reader should know."""

    losses: pl.DataFrame
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format(ABC):
    """Where the file comes from is the class's docstring."""

    @abstractmethod
    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """Files, or folders of them, as one loss table.

        losses: risk -> rule that makes losses of scores (`froc.formats._logs.Rule`). base: log of the model before unlearning.
        Raises InputError naming the file.
        """
