"""The `compare` command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from froc.cli import options, words
from froc.search.progress import ProgressDisplay

EXAMPLES = """[bold]Examples[/]

froc compare froc-run

froc compare runs/npo runs/rmu --task removal/ --retain 0.95 --retain 0.8

froc compare froc-run --task tofu:forget05 --data DIR --model DIR

froc compare froc-run --methods npo,simnpo --tries 5 --json
"""


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of the same task and base model.")],
    retain: Annotated[
        list[float] | None,
        typer.Option(
            help="Retained performance that every method is mixed back to (repeatable).",
            show_default="0.95, 0.9",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated methods.", show_default="all that the runs finished", rich_help_panel=options.SEARCH
        ),
    ] = None,
    tries: Annotated[
        int,
        typer.Option(
            help="Configurations per method that take part: the likeliest on search queries.",
            rich_help_panel=options.SEARCH,
        ),
    ] = 3,
    confidence: options.Confidence = 0.9,
    task: options.Task = None,
    data: options.Data = None,
    model: options.Model = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the comparison.",
            show_default="RUN-compare of the first run",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    openings: options.Openings = 1,
    reopen: options.Reopen = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print the comparison as JSON on standard output.", rich_help_panel=options.OUTPUT),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Which method is better, once all keep the same? Mixes each with the base model until they do, and compares what is left.

    Shares are found on search queries; the numbers come from calibration queries, which is one opening of them: a search that
    is to be compared later is planned with --openings 2. On the embedded task questions are drawn afresh, and nothing is spent.
    """
    from froc.search.api import compare_runs
    from froc.search.comparison.terms import Terms

    listed = tuple(name.strip() for name in (methods or "").split(",") if name.strip())
    terms = Terms(tuple(retain) if retain else Terms.levels, confidence, tries, listed, openings, reopen)
    with ProgressDisplay(words.messages, quiet) as display:
        comparison = compare_runs(
            runs, terms, display, out=out, task=task, data=data, model=model, device=device, dtype=dtype
        )
    if json_:
        words.emit(comparison.document)
    elif not quiet:
        _print(comparison.document, comparison.files)


def _print(document: Mapping[str, Any], written: Sequence[Path]) -> None:
    from froc.comparison.document import BEFORE, ordered, sentences
    from froc.comparison.tables import rows

    head, body = rows(document)
    table = Table(title=f"What is left of the forgotten, confidence {document['confidence']:.0%}", title_justify="left")
    for column in head:
        table.add_column(words.visible(column), justify="left" if column == "method" else "right")
    for row in body:
        table.add_row(*map(words.visible, row))
    words.results.print(table)
    first = next(stage for stage in ordered(document["stages"]) if stage != BEFORE)
    for line in sentences(document, [first]):
        words.results.print(words.visible(line), soft_wrap=True)
    if document["failed"]:
        words.results.print(
            f"[dim]did not train again: {', '.join(map(words.name, document['failed']))}[/]", soft_wrap=True
        )
    if document["opening"]["number"] > 1:
        words.results.print(words.visible(document["opening"]["statement"]), soft_wrap=True)
    words.results.print(words.visible(f"written: {', '.join(map(str, written))}"), soft_wrap=True)
