"""Formats, one file each: files of other tools -> a loss table (`froc.loss_table.SCHEMA`).

A bad row is an InputError with file, row and fix; `Read` validates every table. Logs of evaluation tools hold scores;
`froc.formats._score_logs` turns them into losses by rules that the user gives. tests/formats/test_format_contract.py tests every
format for this contract.

May import: risk, data, loss_table and what they may import.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from froc.loss_table import check
from froc.risk.positive_control import Control


@dataclass(frozen=True)
class Source:
    """A source file of losses. file: its path below the given folder. sha256: of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Read:
    """losses: a loss table, checked here (InputError). sources: configuration -> its files, where each has its own.

    scale: what whole numbers among the losses are (`froc.loss_table.check`). notes: what a reader should know. beforehand: whether
    configurations count as named before anybody saw these losses, as for loss tables but not for logs. opened: the certificate or
    plan of the run that opened these losses. control: absences of the base model on the same queries, where they are known.
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
    """A format; its docstring says which tool writes it."""

    @abstractmethod
    def read(self, paths: Sequence[Path], losses: Mapping[str, str], base: Path | None = None) -> Read:
        """Files, or folders of them, as one loss table.

        losses: risk -> rule that makes losses of scores (`froc.formats._scores.Rule`). base: log of the model before unlearning.
        Raises InputError naming the file.
        """
