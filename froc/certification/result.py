"""A certificate that prints and plots."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from froc.reporting.tables import Printed
from froc.reporting.tables import Table as Drawn
from froc.risk.positive_control import sentences
from froc.risk.rounding import at_most

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Certificate(Printed):
    """A certificate, as `froc certify --json` prints it. table: a row per configuration, in testing order.

    certified: configurations whose risks are all within budget, together with the stated confidence. chosen: the one of them with
    the widest margin, or None.
    """

    document: Mapping[str, Any] = field(repr=False)

    @property
    def certified(self) -> list[str]:
        """Names of certified configurations."""
        return list(self.document["certified"])

    @property
    def chosen(self) -> str | None:
        """The certified configuration with the widest margin in its worst risk."""
        config: str | None = self.document["chosen"]
        return config

    @property
    def reason(self) -> str:
        """The outcome in one sentence."""
        return str(self.document["reason"])

    @property
    def base(self) -> dict[str, Any]:
        """risk -> the base model's result (`froc.risk.positive_control.document`); empty where it was not measured."""
        return dict(self.document.get("base") or {})

    @property
    def table(self) -> pl.DataFrame:
        """One row per configuration: config, per risk measured and at most (simultaneous CUR), p_value, certified."""
        return pl.DataFrame(
            [
                {
                    "config": row["config"],
                    **{f"{risk} measured": row["empirical"][risk] for risk in self.document["budget"]},
                    **{f"{risk} at most": row["cur"][risk]["simultaneous"] for risk in self.document["budget"]},
                    "p_value": row["p_value"],
                    "certified": row["certified"],
                }
                for row in self.document["candidates"]
            ]
        )

    def to_polars(self) -> pl.DataFrame:
        """The same as `table`."""
        return self.table

    def __repr__(self) -> str:
        return (
            f"Certificate({len(self.certified)} of {len(self.document['candidates'])} certified, chosen {self.chosen})"
        )

    def plot(self) -> "Figure":
        """Measured risk and its bound for every configuration, against the budgets; a matplotlib figure."""
        from froc.reporting.bounds import bounds

        return bounds(self.document)

    def tables(self) -> list[Drawn]:
        """One: a row per configuration."""
        budget = self.document["budget"]
        columns = (
            "config",
            *(f"{risk} {column}" for risk in budget for column in ("measured", "at most")),
            "p-value",
            "certified",
        )
        rows = tuple(
            (
                row["config"],
                *(
                    cell
                    for risk in budget
                    for cell in (f"{row['empirical'][risk]:.3f}", at_most(row["cur"][risk]["simultaneous"]))
                ),
                f"{row['p_value']:.2g}",
                "yes" if row["certified"] else "no",
            )
            for row in self.document["candidates"]
        )
        budgets = ", ".join(f"{risk} at most {alpha:g}" for risk, alpha in budget.items())
        return [Drawn(f"{budgets}, confidence {self.document['confidence']:g}", columns, rows)]

    def sentences(self) -> list[str]:
        """The outcome, results before and after unlearning, and warnings."""
        shown = self.chosen or (self.document.get("closest") or {}).get("config")
        before = sentences(self.document.get("base") or {}, self.document["candidates"], shown)
        return [self.reason, *before, *(f"warning: {line}" for line in self.document["warnings"])]
