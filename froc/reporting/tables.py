"""Tables of results, as text and as HTML for notebooks. Torch-free; rich is imported when text is made."""

import html
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from froc.visible import marked, visible

WIDTH = 160


@dataclass(frozen=True)
class Table:
    """Rows of cells under a title. A column of notes has an empty name and is omitted where all notes are empty.

    The first column and notes are left-aligned, the others right-aligned.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Any:
        """For a rich console."""
        from rich.table import Table as Drawn

        drawn = Drawn(
            title=marked(self.title), title_justify="left", header_style="bold", min_width=min(WIDTH, len(self.title))
        )
        shown = self._shown()
        for place in shown:
            name = "\n".join(map(marked, self.columns[place].split("\n")))
            drawn.add_column(name, justify="right" if place and name else "left", no_wrap=True)
        for row in self.rows:
            drawn.add_row(*(marked(row[place]) for place in shown))
        return drawn

    def html(self) -> str:
        """A table element."""
        shown = self._shown()
        head = "".join(f"<th>{html.escape(visible(self.columns[place]))}</th>" for place in shown)
        rows = ("".join(f"<td>{html.escape(visible(row[place]))}</td>" for place in shown) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption>{html.escape(visible(self.title))}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _shown(self) -> list[int]:
        return [i for i, name in enumerate(self.columns) if name or any(row[i] for row in self.rows)]


class Printed(ABC):
    """A result that prints as tables followed by sentences, in a terminal and in a notebook."""

    @abstractmethod
    def tables(self) -> Sequence[Table]:
        """Tables, printed first."""

    @abstractmethod
    def sentences(self) -> Sequence[str]:
        """Sentences, printed after the tables."""

    def __str__(self) -> str:
        from rich.console import Console

        drawn = io.StringIO()
        console = Console(file=drawn, width=WIDTH, highlight=False)
        for table in self.tables():
            console.print(table.rich())
        return drawn.getvalue() + "\n".join(map(visible, self.sentences()))

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{html.escape(visible(line))}</p>" for line in self.sentences())
        return "".join(table.html() for table in self.tables()) + lines
