"""`froc certify`: command-line values -> `froc.certification.certify`, and the measures of logs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from froc.cli import options, words
from froc.errors import InputError, NotCertifiedError
from froc.measuring import named_risks

EXAMPLES = """[bold]Examples[/]

froc certify losses.parquet --budget 0.1

froc certify losses.csv --budget forgetting=0.05 --budget utility=0.1 --procedure fixed-sequence --json

froc certify losses.csv --budget 0.1 --unit group --radius 0.05

froc certify losses.csv --budget combined=0.1 --weight forgetting=0.5 --weight utility=0.5

froc certify losses.csv --budget 0.1 --population forgetting=sample --listed forgetting=400

froc certify saves/duet --format open-unlearning --measures

froc certify saves/duet --format open-unlearning --loss forgetting=forget_qa_rouge --loss utility=1-holdout_qa_rouge --budget 0.3 --search-share 0.2
"""


def certify(
    table: Annotated[
        list[Path], typer.Argument(help="Loss table (Parquet, CSV, JSON Lines, JSON), or logs of a --format.")
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            help="Accepted risk: 0.1 for every risk, or RISK=0.1 (repeatable).",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    confidence: options.Confidence = 0.9,
    format_: Annotated[
        str,
        typer.Option("--format", help="Where the files come from (froc list formats).", rich_help_panel=options.DATA),
    ] = "table",
    loss: Annotated[
        list[str] | None,
        typer.Option(
            help="RISK=NAME, RISK=1-NAME or RISK=base-NAME: what of a log's scores is a loss (docs/how-to/logs.md).",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="The base model's log, for base-NAME.", show_default=False, rich_help_panel=options.DATA),
    ] = None,
    scale: options.Scale = None,
    allow_other_mean: Annotated[
        bool,
        typer.Option(
            "--allow-other-mean",
            help="Take a log's rows although their mean is not the one that it reports.",
            rich_help_panel=options.DATA,
        ),
    ] = False,
    search_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the units that orders the configurations; the rest certifies.",
            show_default="the table's own splits",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of that division.", rich_help_panel=options.SEARCH)] = 0,
    named_beforehand: Annotated[
        bool,
        typer.Option(
            "--named-beforehand",
            help="The configurations were named before anybody saw these losses: test on all.",
            rich_help_panel=options.RISKS,
        ),
    ] = False,
    procedure: options.Procedure = "weighted-holm",
    bound: options.Bound = "auto",
    binary: Annotated[
        bool,
        typer.Option(
            "--binary",
            help="The losses can only be 0 or 1, by what they measure: auto takes exact bounds.",
            rich_help_panel=options.RISKS,
        ),
    ] = False,
    unit: Annotated[
        str, typer.Option(help="Sampling unit: query, or group for the unit column.", rich_help_panel=options.DATA)
    ] = "query",
    population: options.Population = None,
    listed: Annotated[
        list[str] | None,
        typer.Option(
            help="RISK=400: size of the list a sample was drawn from.",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    weight: options.Weight = None,
    radius: options.Radius = 0.0,
    joint: options.Joint = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw the bounds under shift into this PNG.", show_default=False, rich_help_panel=options.OUTPUT
        ),
    ] = None,
    measures: Annotated[
        bool,
        typer.Option(
            "--measures", help="List what the logs measured, and do nothing else.", rich_help_panel=options.DATA
        ),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the certificate as JSON.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> None:
    """Risk control on losses that were measured already: which configurations are within budget?

    Configurations with search rows are tested in the order that those suggest. Without search rows all are equal, and must not
    have been chosen by looking at these losses; --search-share divides the rows where they were.
    """
    from froc.certification import certify as certifying
    from froc.cli.show.summary import certified

    if measures:
        _print_measures(table, format_, json_)
        return
    if not budget:
        raise InputError("nothing to certify without a budget; give --budget 0.1, or RISK=0.1 for each risk")
    rules = words.rules(loss or [])
    read = certifying.read(table, format_, rules, base, scale=scale, allow_other_mean=allow_other_mean)
    risks = sorted(read.losses["risk"].unique().to_list())
    result = certifying.certificate_of(
        read, named_risks.complete(*words.budgets(budget), risks), confidence=confidence, search_share=search_share, split_seed=split_seed,
        named_beforehand=named_beforehand, procedure=procedure, bound=bound, binary=binary, unit=unit,
        population=words.per_risk(population or [], "population", str, risks),
        listed=words.per_risk(listed or [], "listed", int, risks),
        weights=words.per_risk(weight or [], "weight", float, risks), radius=radius, joint=joint,
    )  # fmt: skip
    certificate = result.document
    if figure is not None:
        from froc.reporting.bounds import draw_shift

        draw_shift(figure, certificate)
    if json_:
        words.emit(certificate)
    else:
        certified(certificate)
    if certificate["chosen"] is None:
        raise NotCertifiedError(certificate["reason"])


def _print_measures(paths: Sequence[Path], format_: str, json_: bool) -> None:
    """The measures that rules can name, and their mean in every log."""
    from froc.formats import Format
    from froc.formats._score_logs import Logs
    from froc.formats._scores import MEAN_TOLERANCE
    from froc.plugins import make

    reader = make(Format, format_)
    if not isinstance(reader, Logs):
        raise InputError(
            "a loss table has losses, not measures; give --format for another tool's logs (froc list formats)"
        )
    measured = reader.measures(paths)
    if json_:
        words.emit(measured.to_dicts())
        return
    configs = measured["config"].unique(maintain_order=True).to_list()
    table = Table(title="Mean per query, in [0, 1]", title_justify="left", box=None, header_style="bold")
    table.add_column("measure", no_wrap=True)
    table.add_column("queries", justify="right")
    for config in configs:
        table.add_column(words.name(config), justify="right", overflow="fold")
    for (name, queries), rows in measured.group_by("measure", "queries", maintain_order=True):
        means = dict(zip(rows["config"], rows["mean"], strict=True))
        cells = ("" if means.get(config) is None else f"{means[config]:.3f}" for config in configs)
        table.add_row(words.name(str(name)), "" if queries is None else f"{queries:d}", *cells)
    words.results.print(table)
    for row in measured.iter_rows(named=True):
        for line in _doubts(row, MEAN_TOLERANCE):
            words.results.print(f"{words.name(row['config'])}: {words.visible(line)}")


def _doubts(row: Mapping[str, Any], near: float) -> Iterator[str]:
    """Warnings about a measure, for before it is named in a rule."""
    if row["note"]:
        yield row["note"]
    if row["missing"]:
        yield f"{row['measure']}: {row['missing']} queries have no score, or not all; each counts as a loss of 1"
    if row["reported"] is not None and row["mean"] is not None and abs(row["reported"] - row["mean"]) > near:
        yield f"{row['measure']}: the log reports {row['reported']:.6g}; it is refused without --allow-other-mean"
