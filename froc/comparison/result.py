"""A comparison that prints, and the files that it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from froc.atomic import write_text
from froc.comparison import figure, tables
from froc.comparison.document import BEFORE, ordered, sentences
from froc.data.task import RISKS
from froc.reporting.tables import Printed, Table


@dataclass(frozen=True)
class Comparison(Printed):
    """Methods at equal utility. out: folder of the comparison; document: as `comparison.json`; files: figures and tables."""

    out: Path
    document: Mapping[str, Any] = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)

    @classmethod
    def written(cls, out: Path, document: Mapping[str, Any]) -> "Comparison":
        """Draw the figures and write the tables into the folder."""
        files = list(figure.draw(out, document))
        for name, text in (("md", tables.markdown(document)), ("tex", tables.latex(document))):
            path = out / f"comparison.{name}"
            write_text(path, text)
            files.append(path)
        return cls(out, document, tuple(files))

    @property
    def methods(self) -> list[str]:
        """Best first, at the first level of retained performance."""
        levels = [stage for stage in ordered(self.document["stages"]) if stage != BEFORE]
        return list(self.document["ranking"][(levels or [BEFORE])[0]]["methods"])

    def to_polars(self) -> pl.DataFrame:
        """stage, method, mix, and per risk mean, lower and upper: a row per method and stage (`before`, then each level)."""
        rows = [
            {"stage": stage, "method": method, "mix": float(point["mix"])}
            | {f"{risk}_{end}": float(point[risk][end]) for risk in RISKS for end in ("mean", "lower", "upper")}
            for stage in ordered(self.document["stages"])
            for method, point in self.document["stages"][stage].items()
        ]
        return pl.DataFrame(rows)

    def tables(self) -> list[Table]:
        """One: a row per method."""
        head, body = tables.rows(self.document)
        title = f"What is left of the forgotten, confidence {self.document['confidence']:.0%}"
        return [Table(title, tuple(head), tuple(map(tuple, body)))]

    def sentences(self) -> list[str]:
        """Which differences are shown, stage by stage, and how often the queries were looked at."""
        return [*sentences(self.document), self.document["opening"]["statement"]]

    def __repr__(self) -> str:
        return f"Comparison(out={str(self.out)!r}, {' > '.join(self.methods)})"
