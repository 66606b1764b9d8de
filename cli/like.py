"""`froc search --like RUN`: what an earlier run was asked for stands wherever the user says nothing."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli import options

SETTINGS = {"search_share": "share", "weight": "weights", "metric": "metrics", "risk": "metrics"}
"""Options of `froc search` -> names of their settings, where these differ."""

Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        "-b",
        help="Accepted risk: 0.1 for every risk, or RISK=0.1 (repeatable). Needed without --like.",
        show_default=False,
        rich_help_panel=options.RISKS,
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Earlier run whose options are the defaults and whose best configurations, by its search queries, are tried first.",
        show_default=False,
        rich_help_panel=options.SEARCH,
    ),
]
LikeTask = Annotated[
    list[Path] | None,
    typer.Option(
        help="With --like: task folder that the run searched, where it is another than --task (repeatable).",
        show_default=False,
        rich_help_panel=options.SEARCH,
    ),
]


def explicit(context: typer.Context) -> set[str]:
    """Names of the settings that the user gave, on the command line or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    named = (name for name, source in sources.items() if source and source.name not in ("DEFAULT", "DEFAULT_MAP"))
    return {SETTINGS.get(name, name) for name in named}
