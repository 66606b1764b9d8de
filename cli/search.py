"""The `search` command and its progress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from froc.cli import like as like_options
from froc.cli import options, words
from froc.cli.autocast import warn_of_slow_autocast
from froc.cli.memory import print_memory
from froc.cli.plan_signature import plan_signature
from froc.cli.show.summary import summary
from froc.errors import FrocError, InputError, NotCertifiedError
from froc.measuring import named_risks
from froc.search import prior_run
from froc.search.continual import predecessor
from froc.search.machine import Machine, worker_devices
from froc.search.progress import ProgressDisplay
from froc.search.search_options import SearchOptions, search_job, search_settings

EXAMPLES = """[bold]Examples[/]

froc search --budget 0.1

froc search --budget forgetting=0.05 --budget utility=0.1 --task DIR --model meta-llama/Llama-3.2-1B-Instruct

froc search --budget 0.1 --methods npo,simnpo --trials 60 --space lr=1e-6:1e-4 --out runs/npo

froc search --budget 0.1 --budget quantized=0.2 --budget relearning=0.3

froc search --budget 0.1 --relative utility

froc search --budget 0.1 --profile strict --task DIR

froc search --budget 0.1 --task tofu:forget10 --data DIR --unit utility=query --model DIR

froc search --budget 0.1 --risk actor=rouge_l@role_play+prefix_injection

froc search --budget 0.1 --later 2 --task first/ --out runs/1

froc search --budget 0.1 --budget earlier=0.05 --after runs/1 --earlier first/ --task second/ --out runs/2

froc search --like runs/npo --trials 10 --out runs/npo-again

froc search --budget 0.1 --key signer.pem --tsa https://tsa.example.org/tsr --tsa-root tsa-root.pem
"""


def search(
    context: typer.Context,
    budget: like_options.Budget = None,
    confidence: options.Confidence = 0.9,
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
    trials: Annotated[
        int,
        typer.Option(
            "--trials", "--max-trials", help="How many configurations to try.", rich_help_panel=options.SEARCH
        ),
    ] = 30,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Run folder; a run that was stopped goes on in it.",
            show_default="froc-run; with --after RUN, RUN-2",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    like: like_options.Like = None,
    like_task: like_options.LikeTask = None,
    after: options.After = None,
    earlier: options.Earlier = None,
    no_earlier: options.NoEarlier = False,
    later: options.Later = 0,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric of forgetting and utility, or RISK=METRIC (froc list metrics).",
            show_default="extraction_strength",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    risk: options.Risk = None,
    profile: options.Profile = "basic",
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="Search range or list: lr=1e-5:1e-3, npo.beta=0.05:0.5, epochs=3,6,9 (repeatable).",
            show_default=False,
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(help="tpe, nsga2, gp, random, or grid (all of --space's lists).", rich_help_panel=options.SEARCH),
    ] = "tpe",
    objective: Annotated[
        str,
        typer.Option(
            help="What the sampler minimizes: margin (the worst risk over its budget), pareto (each risk) or froc (the score).",
            rich_help_panel=options.SEARCH,
        ),
    ] = "margin",
    pruner: Annotated[
        str,
        typer.Option(
            help="halving, median, hyperband, wilcoxon or none: stops hopeless trials early.",
            rich_help_panel=options.SEARCH,
        ),
    ] = "halving",
    procedure: options.Procedure = "weighted-holm",
    bound: options.Bound = "auto",
    candidates: Annotated[
        int | None,
        typer.Option(
            help="How many configurations are tested on calibration queries.",
            show_default="up to 10",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    population: options.Population = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            help="RISK=100: units of a listed population to measure beside the search's.",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    weight: options.Weight = None,
    radius: options.Radius = 0.0,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential",
            help="Measure candidates in rounds; stop once certified or hopeless.",
            rich_help_panel=options.RISKS,
        ),
    ] = False,
    joint: options.Joint = False,
    extendable: options.Extendable = False,
    search_share: Annotated[
        float, typer.Option(help="Part of the queries that the search may look at.", rich_help_panel=options.RISKS)
    ] = 0.2,
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of the split.", show_default="the task's", rich_help_panel=options.SEARCH)
    ] = None,
    audit_seed: options.AuditSeed = None,
    openings: options.Openings = 1,
    series: options.Series = 1,
    reopen: options.Reopen = False,
    relative: options.Relative = None,
    allow_vacuous: options.AllowVacuous = False,
    seed: Annotated[
        int, typer.Option(help="Seed of every random number of the run.", rich_help_panel=options.SEARCH)
    ] = 0,
    batch: options.Batch = 32,
    train: options.Train = "full",
    pack: options.Pack = 1,
    sweep: Annotated[
        bool,
        typer.Option(
            help="Try stops on the way and mixes with the base model: candidates without training.",
            rich_help_panel=options.TRAINING,
        ),
    ] = True,
    autocast: options.Autocast = None,
    measure_dtype: options.MeasureDtype = None,
    attention: options.Attention = None,
    deterministic: options.Deterministic = False,
    gpus_per_trial: options.GpusPerTrial = 1,
    optimizer: options.Optimizer = "adamw",
    checkpointing: options.Checkpointing = False,
    compiled: options.Compiled = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    executor: options.Executor = "auto",
    workers: options.Workers = None,
    worker_gpus: options.WorkerGpus = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            help="Packs of trials in flight: part of the plan, so that results do not depend on the machine.",
            show_default="4, or as many as workers or GPUs; a run that goes on keeps its own",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    until: options.Until = "trials",
    timeout: Annotated[
        str | None,
        typer.Option(
            help="30m, 2h or seconds: no trial starts after; what is done by then goes on to calibration.",
            show_default="none",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    trial_timeout: Annotated[
        str | None,
        typer.Option(
            help="Time that the training of one trial may take.", show_default="none", rich_help_panel=options.SEARCH
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="FROC_STORAGE",
            show_envvar=True,
            show_default="study.db in the run folder",
            help="Optuna storage that several searches of one plan share: postgresql://USER@HOST/DATABASE.",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    key: options.PlanKey = None,
    tsa: options.Tsa = None,
    tsa_root: options.TsaRoot = None,
    rebuild_embedded: Annotated[
        bool,
        typer.Option(
            "--rebuild-embedded",
            help="Train the embedded task's model on this machine (minutes) instead of using the one that comes with froc.",
            rich_help_panel=options.DATA,
        ),
    ] = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search methods and configurations, certify them, pick one and save its model.

    Trains unlearning runs, seals a list of candidates, measures those on queries that the search never saw, and
    certifies the configurations whose risks are within budget with the stated confidence.
    """
    # wrong values are refused before slow imports
    defined = words.definitions(risk or [])
    previous = predecessor.PredecessorOptions(after, tuple(earlier or ()), no_earlier)
    previous.check()
    explicit = like_options.explicit(context)
    prior = None if like is None else prior_run.read(like, previous.out(out))
    if not budget and (prior is None or "profile" in explicit):
        raise InputError(
            "give the accepted risk: --budget 0.1, or --like RUN without --profile for that of an earlier run"
        )
    values: dict[str, Any] = {
        "space": words.spaces(space or []),
        "metrics": words.per_risk(metric or [], "metric", str) | defined,
        "population": words.per_risk(population or [], "population", str),
        "sample": words.per_risk(sample or [], "sample", int),
        "weights": words.per_risk(weight or [], "weight", float),
        "timeout": words.seconds(timeout, "timeout"),
        "trial_timeout": words.seconds(trial_timeout, "trial-timeout"),
        "methods": tuple(name.strip() for name in methods.split(",") if name.strip()),
        "relative": tuple(relative or ()),

            "confidence": confidence, "trials": trials, "sampler": sampler, "pruner": pruner, "procedure": procedure, "bound": bound,
            "joint": joint, "extendable": extendable, "series": series, "candidates": candidates, "share": search_share, "seed": seed, "batch": batch, "openings": openings,
            "reopen": reopen, "radius": radius, "sequential": sequential, "objective": objective, "train": train, "pack": pack,
            "sweep": sweep, "autocast": autocast, "measure_dtype": measure_dtype, "optimizer": optimizer, "until": until,
            "storage": storage, "later": later, "allow_vacuous": allow_vacuous
        ,
    }  # fmt: skip
    if budget:
        values["budget"] = named_risks.budgets_of_profile(*words.budgets(budget), profile, defined, previous.risks)
    if prior is not None:
        values = prior.values(values, explicit)
        if not quiet:
            words.messages.print(f"[dim]{words.visible(prior.sentence(explicit))}[/]", soft_wrap=True)
    machine = Machine(
        device, dtype, checkpointing, compiled, executor, workers, worker_gpus, True, attention, deterministic, gpus_per_trial
    )  # fmt: skip
    place_of = prior_run.places(
        prior, task=task, model=model, data=data, unit=words.per_risk(unit or [], "unit", str), split_seed=split_seed
    )  # fmt: skip
    chosen = SearchOptions(
        out, **place_of, audit_seed=audit_seed, predecessor=previous, machine=machine, parallel=parallel,
        rebuild_embedded=rebuild_embedded, prior=prior, prior_tasks=tuple(like_task or ()),
    )  # fmt: skip
    display = ProgressDisplay(words.messages, quiet)
    settings = search_settings(chosen, values.pop("budget"), display.starting, **values)
    place = chosen.run_folder
    sign_plan = plan_signature(place, key, tsa, tsa_root)
    with display:
        job = search_job(chosen, settings, display.step)
        if dry_run:
            print_memory(job, machine, display.starting, json_)
            return
        # workers on other devices are not this process's to time
        if set(worker_devices(machine)) <= {"cpu"}:
            warn_of_slow_autocast(job)
        from froc.search.pipeline import run

        certificate = run(job, place, display, sign_plan)
    finish(place, certificate, json_, quiet)


def finish(out: Path, certificate: Mapping[str, Any], json_: bool, quiet: bool) -> None:
    """Draw and print a run's result; NotCertifiedError where nothing is chosen."""
    try:
        _draw(out)
    except Exception as error:  # a figure's failure must not hide the result of a finished run
        why = str(error) if isinstance(error, FrocError) else type(error).__name__
        words.messages.print(f"[yellow]warning:[/] figures are missing ({words.visible(why)})", soft_wrap=True)
    if json_:
        words.emit(certificate)
    elif not quiet:
        summary(out, certificate)
    if certificate["chosen"] is None:
        raise NotCertifiedError(certificate["reason"])


def _draw(out: Path) -> None:
    from froc.reporting import bounds, drift, landscape, sustainability
    from froc.search.run_folder import Folder

    folder = Folder(out)
    plan, certificate = folder.read(folder.plan), folder.read(folder.certificate)
    if plan is not None and certificate is not None:
        weighing = plan["search"].get("weighing")
        tried = [vars(configuration) for record in folder.log() for configuration in record.configurations()]
        landscape.draw(folder.figures, tried, certificate, weighing)
        if certificate["candidates"]:
            bounds.draw_shift(folder.figures / "shift.png", certificate)
        if (moved := folder.read(folder.drift)) is not None:
            drift.draw_drift(folder.figures / "drift.png", moved, certificate)
    record = folder.read(folder.sustainability)
    if record is not None:
        sustainability.draw_sustainability(folder.figures / "sustainability.png", record)
