"""Tables of results, as text and as HTML for notebooks. Torch-free; rich is imported when text is made."""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 160


@dataclass(frozen=True)
class Table:
    """Rows of cells under a title. The first column and one without a name (notes) stand to the left, the others to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Any:
        """For a rich console."""
        from rich.table import Table as Drawn

        drawn = Drawn(
            title=self.title, title_justify="left", header_style="bold", min_width=min(WIDTH, len(self.title))
        )
        for place, name in enumerate(self.columns):
            drawn.add_column(name, justify="right" if place and name else "left", no_wrap=True)
        for row in self.rows:
            drawn.add_row(*row)
        return drawn

    def html(self) -> str:
        """A table element."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<table><caption>{html.escape(self.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def as_text(tables: Sequence[Table], lines: Sequence[str]) -> str:
    """Tables, then sentences."""
    from rich.console import Console

    drawn = io.StringIO()
    console = Console(file=drawn, width=WIDTH, highlight=False)
    for table in tables:
        console.print(table.rich())
    return drawn.getvalue() + "\n".join(lines)


def as_html(tables: Sequence[Table], lines: Sequence[str]) -> str:
    """Tables, then sentences."""
    return "".join(table.html() for table in tables) + "".join(f"<p>{html.escape(line)}</p>" for line in lines)
