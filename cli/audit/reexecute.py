"""The `audit reexecute` command: losses of a report measured again, and the result signed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from froc.cli import options, words
from froc.cli.audit.measuring_again import Measuring
from froc.errors import InputError, NotCertifiedError
from froc.measuring import named_risks
from froc.search import build
from froc.search.machine import Machine

if TYPE_CHECKING:
    from froc.audit.trust import Trust
    from froc.search.continual.chain import RunChain
    from froc.search.job import Job
    from froc.search.progress import ProgressDisplay

EXAMPLES = """[bold]Examples[/]

froc audit reexecute NAME.froc-audit --seed 20261125 --key auditor.pem --signed-by engineer.pub --task removal/ --base base/

froc audit reexecute NAME.froc-audit --seed 7 --rows 598 --key auditor.pem --trust trust.json

froc audit reexecute NAME.froc-audit --seed 7 --key auditor.pem --trust trust.json --task removal/ --unlearned froc-run/model

froc audit reexecute NAME.froc-audit --seed 7 --key auditor.pem --trust trust.json --task second/ --after runs/1 --earlier first/
"""


def reexecute(
    bundle: options.Bundle,
    seed: Annotated[
        int, typer.Option(help="Draws the rows; choose it after the report was signed.", rich_help_panel=options.SEARCH)
    ],
    key: options.Signer,
    rows: Annotated[
        int,
        typer.Option(
            help="Losses to draw of each configuration under each risk; all of them where there are fewer.",
            rich_help_panel=options.RISKS,
        ),
    ] = 299,
    signed_by: options.SignedBy = None,
    trust: options.Trust = None,
    role: Annotated[str, typer.Option(help="engineer, approver or auditor.", rich_help_panel=options.PLAN)] = "auditor",
    task: options.Task = None,
    data: options.Data = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model: a folder with safetensors or a hub id.",
            show_default="the task's",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(
            help="Where the report goes on after another run (--after): that run's folder; its model is the base.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    earlier: options.Earlier = None,
    unlearned: Annotated[
        Path | None,
        typer.Option(
            help="Measure this model, which the report covers, and draw from its rows alone.",
            show_default="train the sealed configurations again",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The signed model's folder, or hub:ID@REVISION: measured too, where training again comes to other bits than it has.",
            show_default="the sealed digest is compared alone",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="RISK=METRIC, for a metric that needs a folder of its own.",
            show_default="as planned",
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    within: Annotated[
        int,
        typer.Option(
            help="Thousandths up to which losses count as the same, where kernels add in any order; the statement says so.",
            rich_help_panel=options.RISKS,
        ),
    ] = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    gpus_per_trial: options.GpusPerTrial = 1,
    json_: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=options.OUTPUT)] = False,
) -> None:
    """Measure a random sample of a report's losses again, and sign what came of it into the bundle.

    The sealed configurations are trained again with their seeds. Whoever verifies with your public key then reads how many losses
    were drawn, how many differed, what share of any configuration's losses under any risk may differ, and whether the signed model
    has the weights that came of it: to the bit, or else by losses of its own (--model).

    Exit 0: no difference. Exit 3: some rows differed, which is signed too. Exit 4: the bundle does not verify.
    """
    from dataclasses import replace

    import froc
    from froc.audit import keys as signing
    from froc.audit import model_hub, redraw, reexecution, verification, writing
    from froc.search.progress import ProgressDisplay

    if unlearned is not None and model is not None:
        raise InputError("--unlearned measures the signed model alone; leave --model out")
    unlearned, model = model_hub.local(unlearned), model_hub.local(model)

    redraw.refuse_rows(rows)
    reexecution.refuse_role(role)
    signer = signing.load_signer(key, words.password())
    known = trusted(signed_by, trust)
    place = bundle / reexecution.NAME
    if place.exists():
        raise InputError(f"{place} exists and is not overwritten; work on a copy of the bundle without it")
    verified = verification.check(bundle, replace(known, threshold=1, needed={}), model=unlearned or model)
    config = None if unlearned is None else str(verified.report["config"])
    losses = verified.files["losses.csv"]
    scope = reexecution.scope_of(verified.facts, config)
    lines = redraw.draw(losses, seed, rows, scope)
    redraw.refuse_lines(len(lines), rows)
    if not lines:
        raise InputError(f"{bundle} holds no losses that could be measured again: nothing was tested")
    drawn = redraw.table(losses, lines)
    environment = verified.facts.plan.environment
    reexecution.refuse_within(within, environment)
    machine = Machine(
        device, dtype, executor="inline", attention=attention_of(environment), deterministic=environment.get("deterministic") == "yes", gpus_per_trial=gpus_per_trial
    )  # fmt: skip
    machine.check()
    with ProgressDisplay(words.messages, quiet) as display:
        chain = _chain(verified.files, after)
        measuring = Measuring(
            verified,
            lambda whole: _job(
                verified.files, task, data, base, metric or [], machine, display, chain, earlier or (), whole=whole
            ),
            lambda done, of: display.step("again", done, of),
            within,
        )
        measured = measuring.losses(drawn, unlearned)
        of_model = measuring.of_model(measured, model, seed, rows) if unlearned is None else {}
    predicate = reexecution.document(
        losses, seed, rows, scope, redraw.compare(drawn, measured.table, scope, within), signed=writing.stamped(None), role=role,
        keyid=signing.public_of(signer).keyid, harness={"name": "froc", "version": froc.__version__},
        environment=measured.environment, **({"within": within} if within else {}), **of_model,
    )  # fmt: skip
    writing.replace_file(place, reexecution.sign(verified.payload, predicate, signer))
    everyone = (*known.keys, signing.public_of(signer))
    reexecution_of_bundle = verification.check(
        bundle, replace(known, keys=everyone, threshold=1, needed={}), model=unlearned or model
    ).reexecution
    assert reexecution_of_bundle is not None
    if json_:
        words.emit(
            {**reexecution_of_bundle.outcome.model_dump(by_alias=True), "assurance": reexecution_of_bundle.assurance}
        )
    else:
        for line in (reexecution_of_bundle.sentence, f"signed in {place}"):
            words.results.print(words.visible(line), soft_wrap=True)
    for name, why in measured.failed.items():
        words.messages.print(
            words.visible(f"{name} could not be trained again, so that its losses count as others: {why}")
        )
    if reexecution_of_bundle.differed:
        raise NotCertifiedError(
            f"{reexecution_of_bundle.differed} of {reexecution_of_bundle.drawn} losses were not found again"
        )


def trusted(keys: list[Path] | None, trust: Path | None) -> "Trust":
    """The keys that must have signed a bundle before it is signed further."""
    from froc.audit import keys as signing
    from froc.audit import trust as trusting

    if bool(keys) == (trust is not None):
        raise InputError("give the public key of who signed before (--signed-by), or --trust, and not both")
    return trusting.read(trust) if trust else trusting.Trust(tuple(map(signing.load_public, keys or ())))


def attention_of(environment: Mapping[str, Any]) -> str | None:
    """The kernel that the run was computed with, where every machine has it; None, the fastest here, where not."""
    kernel = environment.get("attention")
    return kernel if kernel in ("eager", "sdpa") else None


def _job(
    files: Mapping[str, bytes], task: Path | None, data: Path | None, base: str | None, metric: list[str],
    machine: Machine, display: "ProgressDisplay", chain: "RunChain | None", earlier: Sequence[Path],
    *, whole: bool,
) -> "Job":  # fmt: skip
    """The report's job, rebuilt; InputError where the given inputs differ. whole: all parameters may be replaced."""
    from dataclasses import replace

    from froc.data.tasks import embedded_text
    from froc.search.earlier_plan import draw_of
    from froc.search.reexecution import refuse_other_job
    from froc.search.settings import not_written, settings_of

    plan: dict[str, Any] = json.loads(files["plan.json"])
    try:
        planned_task = plan["task"]
        label = plan["split"].get("label", "")
        if not isinstance(label, str):
            raise not_written("split.label", "not text")
        # a folder that the report names is not opened
        if task is None and ("questions" not in plan or embedded_text.request_of(planned_task["name"]) is None):
            raise InputError(f"the report is about the task {planned_task['name']}; give its folder with --task")
        units = {risk: planned_task["units"][risk] for risk in named_risks.BASIC}
        settings = settings_of(plan, words.per_risk(metric, "metric", str))
        if whole:
            settings = replace(settings, train="full", pack=1)
        inputs = build.Inputs(
            task or Path(planned_task["name"]), base, data, units, planned_task["split_seed"], after=chain, earlier=earlier,
            questions=plan.get("questions"), label=label, draw=draw_of(plan),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise not_written(str(error), type(error).__name__) from error
    job = build.build_job(settings, inputs, machine, display.step)
    refuse_other_job(job, plan)
    return job


def _chain(files: Mapping[str, bytes], after: Path | None) -> "RunChain | None":
    """The run that the report continues; InputError where it differs from the plan's."""
    from froc.search.continual.chain import read

    planned = json.loads(files["plan.json"]).get("after")
    if planned is None and after is None:
        return None
    if planned is None:
        raise InputError("the report goes on after no other run; leave --after out")
    if after is None:
        raise InputError(
            f"the report goes on after another run, which removed {len(planned['tasks'])} request(s); give its folder with "
            "--after, and the task folders of those requests with --earlier"
        )
    chain = read(after, planned["measured"])
    if chain.plan_entry != planned:
        raise InputError(
            f"{after} is not the run that the report goes on after: its certificate or model is another one"
        )
    return chain
