"""Formats: one file each; every format reads somebody's files into a loss table (`froc.loss_table.SCHEMA`).

A bad row is an InputError with file, row and mend; `Read` checks what any format gives. Logs of evaluation tools hold scores,
not losses: `froc.formats._score_logs` makes losses of them by rules that the user states. tests/formats/test_format_contract.py
holds every format, by name, to what this says.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from froc.loss_table import check
from froc.risk.control import Control


@dataclass(frozen=True)
class Source:
    """A file that losses come from. file: its path below the folder that was given. sha256: of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Read:
    """losses: a loss table, checked here (InputError). sources: configuration -> its files, where each has its own.

    scale: what whole numbers among the losses are (`froc.loss_table.check`). notes: what a reader should know. beforehand: whether giving these losses says that nobody had seen them when their
    configurations were named, as giving a loss table does; logs do not say so. opened: what a run has opened these losses for.
    control: what the base model lacks on the same queries, where its log or its rows are at hand.
    """

    losses: pl.DataFrame
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    beforehand: bool = False
    scale: str | None = None
    opened: Mapping[str, Any] | None = None
    control: Control | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", check(self.losses, self.scale))


@dataclass(frozen=True)
class Format(ABC):
    """Where the file comes from is the class's docstring."""

    @abstractmethod
    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """Files, or folders of them, as one loss table.

        losses: risk -> rule that makes losses of scores (`froc.formats._scores.Rule`). base: log of the model before unlearning.
        Raises InputError naming the file.
        """
