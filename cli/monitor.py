"""The `monitor` command."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli import options, words
from froc.errors import NotCertifiedError

EXAMPLES = """[bold]Examples[/]

froc monitor today.csv --certificate froc-run --state monitor.json

froc monitor log.jsonl --certificate certificate.json --state monitor.json --alarm 0.01 --figure monitor.png

froc monitor log.parquet --certificate froc-run --risk forgetting --json
"""


def monitor(
    table: Annotated[
        Path,
        typer.Argument(
            help="Losses of the model in use, in order of arrival: a loss table (config, risk, query, loss)."
        ),
    ],
    certificate: Annotated[
        Path,
        typer.Option(
            help="Run folder, its certificate.json, or what froc certify --json printed.", rich_help_panel=options.DATA
        ),
    ],
    state: Annotated[
        Path | None,
        typer.Option(
            help="File that is kept between calls: rows that were counted are skipped.",
            show_default="the table is all there is",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    alarm: Annotated[
        float, typer.Option(help="Chance of any false alarm over the whole stream.", rich_help_panel=options.RISKS)
    ] = 0.05,
    risk: Annotated[
        list[str] | None,
        typer.Option(
            help="Risk to watch (repeatable); those that are watched share the level.",
            show_default="all",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Configuration in use.", show_default="the chosen one", rich_help_panel=options.DATA),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw e-values and means into this PNG.", show_default=False, rich_help_panel=options.OUTPUT),
    ] = None,
    scale: options.Scale = None,
    json_: options.Json = False,
) -> None:
    """Does the model in use still keep its certified budgets? An alarm that may be looked at as often as one likes.

    Exit 0: no alarm. Exit 3: a risk exceeds its budget; the alarm stays.
    """
    from froc.monitoring.monitor import monitor as monitored

    report = monitored(table, certificate=certificate, state=state, alarm=alarm, risk=risk, config=config, scale=scale)
    if figure is not None:
        report.save(figure)
    if json_:
        words.emit(report.document())
    else:
        for section in report.tables():
            words.results.print(section.rich())
        for line in report.summary:
            words.results.print(words.visible(line), soft_wrap=True)
    if report.alarms:
        raise NotCertifiedError(f"alarm: {' and '.join(report.alarms)} above budget")
