"""The `extend` command: a run that certified nothing goes on with fresh queries."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli import options, words
from froc.cli.search import finish
from froc.errors import InputError
from froc.search.machine import Machine
from froc.search.progress import ProgressDisplay
from froc.search.rebuilding import Rebuilding, chain_of, machine_of, rebuilt_job

EXAMPLES = """[bold]Examples[/]

froc extend froc-run --queries more.jsonl --task removal/

froc extend froc-run --queries forgetting=more.jsonl --queries utility=others.jsonl --task removal/ --base base/

froc extend froc-run --draw
"""


def extend(
    run: Annotated[Path, typer.Argument(help="Run folder of a search with --extendable.")],
    queries: Annotated[
        list[str] | None,
        typer.Option(
            help="Fresh queries: a file whose rows name their pool, or POOL=FILE (repeatable).",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    draw: Annotated[
        bool,
        typer.Option("--draw", help="Draw as many again (embedded task).", rich_help_panel=options.DATA),
    ] = False,
    task: options.Task = None,
    data: options.Data = None,
    base: options.PlannedBase = None,
    after: Annotated[
        Path | None,
        typer.Option(
            help="The run that this one went on after (--after).", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    earlier: options.Earlier = None,
    metric: options.PlannedMetric = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    gpus_per_trial: options.GpusPerTrial = 1,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the sealed candidates of a run on fresh queries, beside those it had, and certify from all of them.

    The candidates, their order and levels stay sealed; nothing is trained or chosen anew. You may decide to go on because of what
    you have seen, as often as you like: the confidence stays. Needs a plan that says --extendable. Exit 3 where still nothing is
    certified.
    """
    from froc.data import fresh_queries
    from froc.search.run_folder import Folder
    from froc.search.sealed.further_stages import refuse_unextendable

    folder = Folder(run)
    plan = folder.require_plan()
    refuse_unextendable(plan, folder.read(folder.certificate))
    if draw == bool(queries):
        raise InputError("give fresh queries, --queries FILE, or --draw for the embedded task, and not both")
    rows = fresh_queries.read(queries or [], plan["task"]["units"])
    machine = machine_of(plan["environment"], Machine(device, dtype, executor="inline", gpus_per_trial=gpus_per_trial))
    machine.check()
    with ProgressDisplay(words.messages, quiet) as display:
        display.starting("loading PyTorch")
        from froc.search.extend import extend as extend_run

        inputs = Rebuilding(
            "run", task, data, base, words.per_risk(metric or [], "metric", str), chain_of(plan, after, "run"), earlier or ()
        )  # fmt: skip
        job = rebuilt_job(plan, inputs, machine, display.step)
        certificate = extend_run(job, run, None if draw else rows, display)
    finish(run, certificate, json_, quiet)
