"""The `compare` command."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from froc.atomic import write_text
from froc.cli import options, words
from froc.errors import InputError
from froc.measuring import named_risks
from froc.search import build
from froc.search.progress import ProgressDisplay

if TYPE_CHECKING:
    from froc.search.comparison.terms import ComparedRun
    from froc.search.settings import Settings

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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no table.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> None:
    """Which method is better, once all keep the same? Mixes each with the base model until they do, and compares what is left.

    Shares are found on search queries; the numbers come from calibration queries, which is one opening of them: a search that
    is to be compared later is planned with --openings 2. On the embedded task questions are drawn afresh, and nothing is spent.
    """
    from froc.search.comparison.run import run
    from froc.search.comparison.terms import Terms

    listed = tuple(name.strip() for name in (methods or "").split(",") if name.strip())
    terms = Terms(tuple(retain) if retain else Terms.levels, confidence, tries, listed, openings, reopen)
    terms.check()
    place = out or runs[0].with_name(f"{runs[0].resolve().name}-compare")
    with ProgressDisplay(words.messages, quiet) as display:
        sides = _sides(runs, terms, (task, data, model), build.Machine(device, dtype, executor="inline"), display)
        document = run(sides, terms, place, display.step)
    written = _write(place, document)
    if json_:
        words.emit(document)
    elif not quiet:
        _print(document, written)


def _sides(
    runs: Sequence[Path],
    terms: Any,
    inputs: tuple[Path | None, Path | None, str | None],
    machine: build.Machine,
    display: ProgressDisplay,
) -> "list[ComparedRun]":
    """The runs with what they work on; InputError where they cannot be compared. told: task, data and model."""
    task, data, model = inputs
    from froc import hashing
    from froc.plan_identity import identity
    from froc.search.comparison.terms import ComparedRun
    from froc.search.plan import draw_of
    from froc.search.run_folder import Folder

    compared: list[ComparedRun] = []
    plans = {}
    for path in runs:
        plan = Folder(path).read(Folder(path).plan)
        if plan is None:
            raise InputError(f"{path} is no run folder (no plan.json); give folders that froc search --out wrote")
        plans[path] = plan
    # of the embedded task, whose questions are known, a comparison asks others than any search did
    questions = int(hashing.sha256_json([[identity(plan) for plan in plans.values()], vars(terms)])[:8], 16)
    for path, plan in plans.items():
        units = {risk: plan["task"]["units"][risk] for risk in named_risks.BASIC}
        job = build.build_job(
            _settings(path, plan),
            build.Inputs(
                task,
                model,
                data,
                units,
                plan["task"]["split_seed"],
                questions=questions,
                label=str(questions),
                draw="by-row" if task is None else draw_of(plan),
            ),
            machine,
            display.training,
        )
        _refuse_other(path, plan, job, embedded=task is None)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "run"
        compared.append(ComparedRun(name, Folder(path), plan, job))
    if len({side.name for side in compared}) < len(compared):
        raise InputError("two runs have the same name; rename one of the folders")
    for side in compared[1:]:
        if side.job.sealed.digests != compared[0].job.sealed.digests:
            raise InputError(
                f"{side.name} divides the queries otherwise than {compared[0].name}; they cannot be compared"
            )
    return compared


def _settings(path: Path, plan: Mapping[str, Any]) -> "Settings":
    """What a run was told, as far as training and measuring again hang on it."""
    from dataclasses import replace

    from froc.search.settings import settings_of

    kinds = {plan.get("population", {}).get(risk, "queries") for risk in named_risks.BASIC}
    if plan.get("after"):
        raise InputError(
            f"{path} goes on after another run; methods are compared on runs of the first base model alone"
        )
    if kinds != {"queries"}:
        raise InputError(f"{path} is about listed rows; methods are compared on populations of queries alone")
    # of the further risks, and of how candidates were tested, nothing is measured again
    settings = replace(settings_of(plan, {}), sequential=False, pack=1)
    budget = {risk: settings.budget.get(risk, 0.1) for risk in named_risks.BASIC}
    return replace(settings, budget=budget, metrics={risk: settings.metrics[risk] for risk in named_risks.BASIC})


def _refuse_other(path: Path, plan: Mapping[str, Any], job: Any, embedded: bool) -> None:
    if job.base.digest != plan["model"]["digest"]:
        raise InputError(
            f"{path} was made with another base model ({plan['model']['name']}); give that one with --model"
        )
    if not embedded and job.task.digest != plan["task"]["digest"]:
        raise InputError(f"{path} was made with another task ({plan['task']['name']}); give that folder with --task")
    if embedded and job.task.name != plan["task"]["name"]:
        raise InputError(f"{path} was made with the task {plan['task']['name']}; give its folder with --task")


def _write(place: Path, document: Mapping[str, Any]) -> list[Path]:
    from froc.comparison import figure, tables

    written = figure.draw(place, document)
    for name, text in (("md", tables.markdown(document)), ("tex", tables.latex(document))):
        path = place / f"comparison.{name}"
        write_text(path, text)
        written.append(path)
    return written


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
        words.results.print(f"[dim]did not train again: {', '.join(document['failed'])}[/]", soft_wrap=True)
    if document["opening"]["number"] > 1:
        words.results.print(document["opening"]["statement"], soft_wrap=True)
    words.results.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
