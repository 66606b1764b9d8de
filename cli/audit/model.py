"""The `audit model` command: certify an unlearned model that another tool made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from froc.cli import options, words
from froc.errors import InputError, VerificationError
from froc.measuring import named_risks
from froc.search.machine import Machine

if TYPE_CHECKING:
    from froc.search.external_model import ExternalModel


EXAMPLES = """[bold]Examples[/]

froc audit model --base meta-llama/Llama-3.2-1B-Instruct --unlearned out/npo --task removal/ --budget 0.1

froc audit model --base base/ --unlearned out/ --task removal/ --budget 0.1 --profile standard --out runs/npo

froc audit report runs/npo --key signer.pem
"""


def model(
    unlearned: Annotated[
        Path,
        typer.Option(
            help="Unlearned model: a folder with safetensors, or with an adapter of the base.",
            rich_help_panel=options.DATA,
        ),
    ],
    budget: options.Budget,
    base: Annotated[
        str | None,
        typer.Option(
            help="Model that it was made from: a folder or a hub id.",
            show_default="the task's",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    task: options.Task = None,
    data: options.Data = None,
    unit: options.Unit = None,
    confidence: options.Confidence = 0.9,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Run folder; an audit that was stopped goes on in it.", rich_help_panel=options.OUTPUT
        ),
    ] = Path("froc-audit"),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric of forgetting and utility, or RISK=METRIC.",
            show_default="extraction_strength",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    risk: options.Risk = None,
    profile: options.Profile = "basic",
    bound: options.Bound = "auto",
    population: options.Population = None,
    radius: options.Radius = 0.0,
    joint: options.Joint = False,
    search_share: Annotated[
        float,
        typer.Option(
            help="Part of the queries that is left to searches; not certified from.", rich_help_panel=options.RISKS
        ),
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
    device: options.Device = None,
    dtype: options.Dtype = None,
    measure_dtype: options.MeasureDtype = None,
    attention: options.Attention = None,
    deterministic: options.Deterministic = False,
    gpus_per_trial: options.GpusPerTrial = 1,
    json_: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the certificate as JSON on standard output.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    key: options.PlanKey = None,
    tsa: options.Tsa = None,
    tsa_root: options.TsaRoot = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure and certify an unlearned model from any other tool: one candidate, no search. Then froc audit report signs it.

    The queries are divided as froc search divides them, and opened once: several models compared on the same task need
    --openings, said before the first. The model's files are copied into the run as they are.
    """
    from dataclasses import replace

    from froc.cli.plan_signature import plan_signature
    from froc.cli.search import finish
    from froc.models.model_name import refuse_no_folder
    from froc.search import build
    from froc.search.earlier_plan import draw_of, label_of
    from froc.search.progress import ProgressDisplay
    from froc.search.run_folder import Folder
    from froc.search.search_options import SearchOptions
    from froc.search.settings import Settings

    defined = words.definitions(risk or [])
    settings = Settings(
        budget=named_risks.budgets_of_profile(*words.budgets(budget), profile, defined), confidence=confidence,
        metrics=words.per_risk(metric or [], "metric", str) | defined, trials=1, candidates=1, sampler="random", pruner="none",
        bound=bound, population=words.per_risk(population or [], "population", str), radius=radius, joint=joint,
        share=search_share, openings=openings, series=series, reopen=reopen, sweep=False, measure_dtype=measure_dtype, allow_vacuous=allow_vacuous,
        relative=tuple(relative or ()),
    )  # fmt: skip
    settings.check()
    Folder(out).refuse_unwritable()
    machine = Machine(
        device, dtype, executor="inline", attention=attention, deterministic=deterministic, gpus_per_trial=gpus_per_trial
    )  # fmt: skip
    options_of_search = SearchOptions(task=task, model=base, data=data, machine=machine)
    options_of_search.check()
    refuse_no_folder(unlearned)
    # torch is imported from here on: what can be wrong without it was refused
    from froc.search.external_model import ExternalModel
    from froc.search.pipeline import run

    external = ExternalModel(unlearned)
    signer = plan_signature(out, key, tsa, tsa_root)
    with ProgressDisplay(words.messages, quiet) as display:
        _refuse_open(external)
        job = build.build_job(
            settings,
            build.Inputs(
                task,
                base,
                data,
                words.per_risk(unit or [], "unit", str),
                split_seed,
                audit_seed,
                label=label_of(Folder(out)),
                draw=draw_of(Folder(out).read(Folder(out).plan)),
                loaded=options_of_search.loaded,
            ),
            machine,
            display.step,
        )
        certificate = run(
            replace(job, external=external, space={}, notes=(*job.notes, *external.notes)), out, display, signer
        )
    finish(out, certificate, json_, quiet)


def _refuse_open(external: "ExternalModel") -> None:
    """InputError, before anything is hashed or measured, for a folder that no report could cover."""
    from froc.audit import model_folder

    try:
        model_folder.refuse_sizes(external.folder, external.names)
        if external.adapted:
            return
        model_folder.refuse_open(external.names)
        model_folder.refuse_content(external.folder, external.names)
    except VerificationError as error:
        raise InputError(f"{external.folder}: {error}") from error
