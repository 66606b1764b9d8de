"""The `bench` command: speed of trials on the user's own model and device."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from froc import extras
from froc.cli import options, words
from froc.cli.autocast import warn_of_slow_autocast
from froc.cli.memory import memory_lines
from froc.errors import InputError
from froc.measuring import named_risks
from froc.search import build
from froc.search.machine import Machine, small_model_workers

if TYPE_CHECKING:
    from froc.search.trial.throughput import Speed

EXAMPLES = """[bold]Examples[/]

froc bench

froc bench --task DIR --model meta-llama/Llama-3.2-1B-Instruct --methods npo,rmu --train lora:rank=8 --pack 4

froc bench --methods npo --compile --json
"""


def bench(
    task: options.Task = None,
    data: options.Data = None,
    unit: options.Unit = None,
    model: options.Model = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated methods such as npo or gu(npo), families, standard, all (froc list methods).",
            rich_help_panel=options.SEARCH,
        ),
    ] = "standard",
    steps: Annotated[
        int,
        typer.Option(help="Optimiser steps timed per method, after two to warm up.", rich_help_panel=options.TRAINING),
    ] = 8,
    batch: options.Batch = 32,
    train: options.Train = "full",
    pack: options.Pack = 1,
    sweep: Annotated[
        bool, typer.Option(help="Count the stops and mixes that a search would try.", rich_help_panel=options.TRAINING)
    ] = True,
    autocast: options.Autocast = None,
    measure_dtype: options.MeasureDtype = None,
    attention: options.Attention = None,
    gpus_per_trial: options.GpusPerTrial = 1,
    optimizer: options.Optimizer = "adamw",
    checkpointing: options.Checkpointing = False,
    compiled: options.Compiled = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> None:
    """Time training steps and measuring, and say how many trials an hour that makes.

    A few steps per method are trained and thrown away; a whole trial, with the method's default epochs, its rungs and
    its sweep, is worked out from them. Nothing is certified and no calibration query is looked at.
    """
    from froc.search.search_options import SearchOptions
    from froc.search.settings import Settings, measures

    if steps < 1:
        raise InputError("--steps must be at least 1")
    settings = Settings(
        budget=dict.fromkeys(named_risks.BASIC, 0.1), methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        batch=batch, train=train, pack=pack, sweep=sweep, autocast=autocast, measure_dtype=measure_dtype, optimizer=optimizer,
    )  # fmt: skip
    settings.check()
    machine = Machine(
        device, dtype, checkpointing, compiled, "inline", attention=attention, gpus_per_trial=gpus_per_trial
    )  # fmt: skip
    options_of_search = SearchOptions(task=task, model=model, data=data, machine=machine)
    options_of_search.check()
    # what can be wrong without torch was refused
    extras.require("search")
    words.messages.print("[dim]loading PyTorch ...[/]")
    from froc.models import nf4
    from froc.models.memory_needs import needs_of_devices, refuse_too_large
    from froc.search.trial import throughput
    from froc.search.trial.memory_table import memory_table
    from froc.search.trial.runner import TrialRunner

    with words.messages.status("preparing") as status:

        def progress(label: str) -> None:
            status.update(label)
            # off a terminal nothing else shows that it goes on
            if not words.messages.is_terminal:
                words.messages.print(f"[dim]{words.visible(label)} ...[/]", soft_wrap=True)

        shown: set[str] = set()

        def preparing(label: str, done: int, of: int) -> None:
            if label not in shown:
                shown.add(label)
                progress(label)
            elif of > 1:
                status.update(f"{label} {done}/{of}")

        job = build.build_job(
            settings,
            build.Inputs(task, model, data, words.per_risk(unit or [], "unit", str), loaded=options_of_search.loaded),
            machine,
            preparing,
        )  # fmt: skip
        refuse_too_large(job.base)
        warn_of_slow_autocast(job)
        memory = memory_table(job, checkpointing=checkpointing, progress=progress)
        words.messages.print(f"[dim]{words.visible(memory.sentence)}[/]", soft_wrap=True)
        shares = needs_of_devices(job.base) if len(job.base.devices) > 1 else {}
        for place, share in shares.items():
            words.messages.print(
                f"[dim]  on {words.visible(place)}: {words.visible(share.sentence())}[/]", soft_wrap=True
            )
        progress("measuring the base model")
        stand = TrialRunner(job.base, job.view, measures(settings), batch=batch, seed=0, swept=sweep, engine=job.engine)
        look = throughput.look_seconds(stand)
        speeds = []
        for name in job.space:
            progress(f"timing {name}")
            speeds.append(throughput.measure(stand, name, steps, look, progress=status.update))
            words.messages.print(
                f"[dim]{words.name(name)}: {speeds[-1].step:.3g} s a step, {speeds[-1].trial:.3g} s a trial[/]"
            )
    facts = {
        "model": job.base.name.rstrip("/").rpartition("/")[2], "digest": job.base.digest[:12], "device": str(job.base.device),
        "dtype": str(next(job.base.model.parameters()).dtype).removeprefix("torch."),
        "parameters": nf4.count(job.base.model),
        "batch": batch, "train": train, "pack": pack, "sweep": sweep, "compiled": compiled, "checkpointing": checkpointing,
        "forget_rows": len(job.view.forget), "search_queries": {r: len(queries) for r, queries in job.view.queries.items()},
        "memory": memory.document,
        **({"memory_of_devices": {place: share.document for place, share in shares.items()}} if shares else {}),
    }  # fmt: skip
    if json_:
        words.emit({**facts, "methods": [speed.document for speed in speeds]})
    else:
        words.results.print(memory_lines(memory))
        words.results.print(_table(speeds, facts))
        if workers := small_model_workers(replace(machine, cpu_workers=True), settings, job.base):
            words.messages.print(
                f"[dim]note: froc search trains {len(workers):d} of these trials at once, one thread each[/]"
            )


def _table(speeds: list["Speed"], facts: dict[str, Any]) -> Table:
    title = (
        f"{facts['parameters'] / 1e6:,.1f} M parameters ({facts['dtype']}) on {facts['device']}, {facts['train']}, "
        f"batch {facts['batch']}, pack {facts['pack']}"
    )
    table = Table(title=words.visible(title), title_justify="left", header_style="bold", box=None)
    table.add_column("method")
    for column in ("steps/trial", "steps/s", "trials/hour", "s/trial", "outside steps", "peak MiB"):
        table.add_column(words.visible(column), justify="right")
    for speed in speeds:
        table.add_row(
            words.name(speed.method), f"{speed.steps:d}", f"{1 / speed.step:.1f}", f"{3600 / speed.trial:,.0f}", f"{speed.trial:.1f}",
            f"{speed.outside:.0%}", f"{speed.peak:,.0f}",
        )  # fmt: skip
    table.caption = (
        "s/trial: default epochs with rungs, sweep and measuring; outside steps: share of it that does not train"
    )
    table.caption_justify = "left"
    return table
