"""Formats: one file each; every format reads somebody's files into a loss table (`froc.losses.SCHEMA`).

A bad row is an InputError with file, row and mend. Values are checked once more by `froc.losses.check`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import polars as pl


@dataclass(frozen=True)
class Format(ABC):
    """Where the file comes from is the class's docstring."""

    @abstractmethod
    def read(self, path: Path) -> pl.DataFrame:
        """A raw loss table; raises InputError naming the file."""
