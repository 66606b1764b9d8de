"""Options that say what is to be certified: the same words in every command that certifies."""

from typing import Annotated

import typer

Budget = Annotated[
    list[str], typer.Option("--budget", "-b", help="Accepted risk: 0.1 for every risk, or RISK=0.1 (repeatable).")
]
Confidence = Annotated[float, typer.Option(help="How sure the certificate must be (1 - delta).")]
Procedure = Annotated[
    str,
    typer.Option(help="How candidates share the error level, e.g. fixed-sequence:starts=3 (froc list procedures)."),
]
Bound = Annotated[str, typer.Option(help="auto, or a bound's name (froc list bounds).")]
Population = Annotated[
    list[str] | None,
    typer.Option(
        help="What a claim is about: queries, sample or census, or RISK=census (docs/statistics.md).",
        show_default="queries",
    ),
]
Weight = Annotated[
    list[str] | None,
    typer.Option(help="RISK=0.5: weight in the combined risk, whose budget is combined=0.1.", show_default=False),
]
Radius = Annotated[float, typer.Option(help="Hellinger radius of shift within which budgets must hold.")]
Joint = Annotated[bool, typer.Option("--joint", help="Certified set and CURs hold together (delta / 2 each).")]
