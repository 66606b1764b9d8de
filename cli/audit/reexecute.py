"""The `audit reexecute` command: losses of a report measured again, and the result signed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from froc.cli import options, words
from froc.cli.audit import evidence_options
from froc.cli.audit.measuring_again import Measuring
from froc.errors import InputError, NotCertifiedError
from froc.search.machine import Machine
from froc.search.rebuilding import Rebuilding, chain_of, machine_of, rebuilt_job

if TYPE_CHECKING:
    from froc.audit.trust import Trust

EXAMPLES = """[bold]Examples[/]

froc audit reexecute NAME.froc-audit --seed 20261125 --key auditor.pem --signed-by engineer.pub --task removal/ --base base/

froc audit reexecute NAME.froc-audit --seed 7 --rows 598 --key auditor.pem --trust trust.json

froc audit reexecute NAME.froc-audit --seed 7 --key auditor.pem --trust trust.json --task removal/ --unlearned froc-run/model

froc audit reexecute NAME.froc-audit --seed 7 --key auditor.pem --trust trust.json --task second/ --after runs/1 --earlier first/
"""


def reexecute(
    bundle: evidence_options.Bundle,
    seed: Annotated[
        int, typer.Option(help="Draws the rows; choose it after the report was signed.", rich_help_panel=options.SEARCH)
    ],
    key: evidence_options.Signer,
    rows: Annotated[
        int,
        typer.Option(
            help="Losses to draw of each configuration under each risk; all of them where there are fewer.",
            rich_help_panel=options.RISKS,
        ),
    ] = 299,
    signed_by: evidence_options.SignedBy = None,
    trust: evidence_options.Trust = None,
    role: Annotated[str, typer.Option(help="engineer, approver or auditor.", rich_help_panel=options.PLAN)] = "auditor",
    task: options.Task = None,
    data: options.Data = None,
    base: options.PlannedBase = None,
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
    metric: options.PlannedMetric = None,
    queries: Annotated[
        list[str] | None,
        typer.Option(
            help="Fresh queries of every stage of a run that froc extend continued: FILE or POOL=FILE (repeatable).",
            show_default=False,
            rich_help_panel=options.DATA,
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
    quiet: options.QuietProgress = False,
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
    from froc.data import fresh_queries
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
    machine = machine_of(environment, Machine(device, dtype, executor="inline", gpus_per_trial=gpus_per_trial))
    machine.check()
    with ProgressDisplay(words.messages, quiet) as display:
        planned = json.loads(verified.files["plan.json"])
        chain = chain_of(planned, after, "report")
        measuring = Measuring(
            verified,
            lambda whole: rebuilt_job(
                planned,
                Rebuilding(
                    "report", task, data, base, words.per_risk(metric or [], "metric", str), chain, earlier or ()
                ),
                machine,
                display.step,
                whole=whole,
            ),
            lambda done, of: display.step("again", done, of),
            within,
            fresh_queries.read(queries, planned["task"]["units"]) if queries else None,
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
