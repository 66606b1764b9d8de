"""The `plan` command."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from froc.cli import options, words
from froc.errors import InputError
from froc.measuring import named_risks

EXAMPLES = """[bold]Examples[/]

froc plan --budget 0.1

froc plan --budget 0.1 --expected-risk 0.03 --candidates 10 --units 300 --binary --figure plan.png

froc plan --budget forgetting=0.05 --budget utility=0.1 --expected-risk 0.02 --clusters utility=40 --units utility=800 --correlation 0.3

froc plan --budget 0.1 --from losses/search.parquet --power 0.95

froc plan --budget 0.1 --from losses/search.parquet --units 400 --design auto
"""
EVERY = "NUMBER for every risk, or RISK=NUMBER (repeatable)."


def plan(
    budget: options.Budget,
    confidence: options.Confidence = 0.9,
    expected_risk: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Risk of the configuration that you hope for: {EVERY}",
            show_default="several",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1, help="Configurations to be tested.", show_default="10, or the table's", rich_help_panel=options.RISKS
        ),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Calibration queries that you have in mind (with --design auto: all): {EVERY}",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    clusters: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Sampling units that the queries come in; each counts once: {EVERY}",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    correlation: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of 0-1 losses within a cluster: {EVERY}",
            show_default="1, the worst case",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    spread: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Standard deviation of a unit's loss: {EVERY}",
            show_default="the widest: losses of 0 or 1",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Loss table whose search rows say what losses are like.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    scale: options.Scale = None,
    binary: Annotated[
        bool,
        typer.Option(
            "--binary",
            help="The losses can only be 0 or 1, by what they measure: auto takes exact bounds.",
            rich_help_panel=options.RISKS,
        ),
    ] = False,
    procedure: options.Procedure = "weighted-holm",
    bound: options.Bound = "auto",
    population: options.Population = None,
    listed: Annotated[
        list[str] | None,
        typer.Option(
            help="RISK=400: size of the list that a sample is drawn from.",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    radius: options.Radius = 0.0,
    joint: options.Joint = False,
    openings: options.Openings = 1,
    search_share: Annotated[
        float | None,
        typer.Option(
            help="Part of the queries that the search looks at.", show_default=False, rich_help_panel=options.RISKS
        ),
    ] = None,
    power: Annotated[
        float,
        typer.Option(help="Wanted chance that the first candidate passes every risk.", rich_help_panel=options.RISKS),
    ] = 0.9,
    design: Annotated[
        str,
        typer.Option(
            help="auto: choose search share, procedure and bound by simulation on --from's search rows.",
            rich_help_panel=options.RISKS,
        ),
    ] = "given",
    seed: Annotated[int, typer.Option(help="Seed of simulations.", rich_help_panel=options.SEARCH)] = 0,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw power against units into this PNG.", show_default=False, rich_help_panel=options.OUTPUT
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the plan as JSON.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> None:
    """How many calibration units does it take to certify, and with which power do they? Asked before any training.

    Nothing here looks at a calibration loss, so that plans may be made and changed as often as one likes.
    """
    accepted = _budgets(budget)
    names = tuple(accepted) if isinstance(accepted, dict) else named_risks.BASIC

    def numbers(texts: Sequence[str] | None, option: str, kind: Callable[[str], Any]) -> dict[str, Any]:
        return words.per_risk(texts or [], option, kind, names)

    from froc.formats.table import Table
    from froc.planning.plan import plan as planned

    losses = None if table is None else Table(scale).read([table], {}).losses
    if losses is not None and not isinstance(accepted, dict):
        names = tuple(sorted(losses["risk"].unique().to_list()))
    made = planned(
        accepted, confidence=confidence, expected_risk=numbers(expected_risk, "expected-risk", float) or None, candidates=candidates,
        units=numbers(units, "units", int), clusters=numbers(clusters, "clusters", int), losses=losses, binary=binary,
        correlation=numbers(correlation, "correlation", float), spread=numbers(spread, "spread", float), procedure=procedure,
        bound=bound, population=numbers(population, "population", str), listed=numbers(listed, "listed", int), radius=radius,
        joint=joint, openings=openings, search_share=search_share, power=power, design=design, seed=seed,
    )  # fmt: skip
    if figure is not None:
        made.save(figure)
    if json_:
        words.emit(made.document())
        return
    for section in made.tables():
        words.results.print(section.rich())
    for line in made.summary:
        words.results.print(words.visible(line), soft_wrap=True)
    if made.command:
        words.results.print(f"next: {words.visible(made.command)}", soft_wrap=True)


def _budgets(texts: Sequence[str]) -> dict[str, float] | float:
    """One number for forgetting and utility, or for the table's risks; with names, only the named ones."""
    named = {word.rpartition("=")[0] for word in texts}
    if named == {""}:
        return words.budgets(texts[-1:])[0] or 0.0
    if bad := [name for name in named if name and not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name)]:
        raise InputError(f"--budget {bad[0]}=...: a risk is named in lower case, such as forgetting=0.1")
    every = named_risks.BASIC if "" in named else ()
    risks = [name for name in named_risks.BASIC if name in named or name in every]
    return named_risks.complete(*words.budgets(texts), [*risks, *sorted(named - {"", *named_risks.BASIC})])
