"""`froc audit keygen / model / report / sign / stamp / reexecute / verify / export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli import exporting, options, reexecuting, words
from froc.errors import InputError, NotCertifiedError, VerificationError

if TYPE_CHECKING:
    from search.external import Given

KEYGEN_EXAMPLES = """[bold]Examples[/]

froc audit keygen signer.pem

FROC_KEY_PASSWORD=... froc audit keygen signer.pem --encrypt
"""
REPORT_EXAMPLES = """[bold]Examples[/]

froc audit report froc-run --key signer.pem

froc audit report froc-run --key signer.pem --out reports --name removal-2026-17

froc audit report froc-run --key signer.pem --comparison froc-run-compare

FROC_KEY_PASSWORD=PIN froc audit report froc-run --key "hsm:2?label=token#signer.pub"
"""
VERIFY_EXAMPLES = """[bold]Examples[/]

froc audit verify NAME.froc-audit --key signer.pem.pub --model froc-run/model

froc audit verify NAME.froc-audit --key engineer.pub --key approver.pub --threshold 2 --json

froc audit verify NAME.froc-audit --trust trust.json --audit-seed 20261125
"""
SIGN_EXAMPLES = """[bold]Examples[/]

froc audit sign NAME.froc-audit --key approver.pem --signed-by engineer.pub --model froc-run/model

froc audit sign NAME.froc-audit --key approver.pem --trust trust.json
"""
STAMP_EXAMPLES = """[bold]Examples[/]

froc audit stamp NAME.froc-audit --tsa https://tsa.example.org/tsr --tsa-root tsa-root.pem

froc audit stamp NAME.froc-audit --requests to-the-authority/

froc audit stamp NAME.froc-audit --responses from-the-authority/ --tsa-root tsa-root.pem
"""
MODEL_EXAMPLES = """[bold]Examples[/]

froc audit model --base meta-llama/Llama-3.2-1B-Instruct --unlearned out/npo --task removal/ --budget 0.1

froc audit model --base base/ --unlearned out/ --task removal/ --budget 0.1 --profile standard --out runs/npo

froc audit report runs/npo --key signer.pem
"""
app = typer.Typer(
    help="Certify a model from elsewhere; signed reports, computed again by whoever verifies them.",
    no_args_is_help=True,
)


app.command("reexecute", epilog=reexecuting.EXAMPLES)(reexecuting.reexecute)
app.command("export", epilog=exporting.EXAMPLES)(exporting.export)


@app.command("keygen", epilog=KEYGEN_EXAMPLES)
def keygen(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; the public one beside it as PATH.pub.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help=f"Encrypt with the password in {words.PASSWORD}, or ask for one.")
    ] = False,
    json_: options.Json = False,
) -> None:
    """Make an Ed25519 key pair; an existing key is never written over."""
    from audit import signing

    password = words.password()
    if encrypt and password is None:
        password = str(typer.prompt("password", hide_input=True, confirmation_prompt=True)).encode()
    fingerprint = signing.keygen(path, password if encrypt else None)
    if json_:
        words.emit({"private": str(path), "public": f"{path}.pub", "fingerprint": fingerprint})
    else:
        words.results.print(f"private key {path} (keep it), public key {path}.pub (hand it out)", soft_wrap=True)
        words.results.print(f"fingerprint {fingerprint}", soft_wrap=True)


@app.command("model", epilog=MODEL_EXAMPLES)
def model(
    unlearned: Annotated[
        Path, typer.Option(help="Unlearned model: a folder with safetensors, or with an adapter of the base.")
    ],
    budget: options.Budget,
    base: Annotated[
        str | None,
        typer.Option(help="Model that it was made from: a folder or a hub id.", show_default="the task's"),
    ] = None,
    task: options.Task = None,
    data: options.Data = None,
    unit: options.Unit = None,
    confidence: options.Confidence = 0.9,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Run folder; an audit that was stopped goes on in it.")
    ] = Path("froc-audit"),
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric of forgetting and utility, or RISK=METRIC.", show_default="extraction_strength"),
    ] = None,
    risk: options.Risk = None,
    profile: options.Profile = "basic",
    bound: options.Bound = "auto",
    population: options.Population = None,
    radius: options.Radius = 0.0,
    joint: options.Joint = False,
    search_share: Annotated[
        float, typer.Option(help="Part of the queries that is left to searches; not certified from.")
    ] = 0.2,
    split_seed: Annotated[int | None, typer.Option(help="Seed of the split.", show_default="the task's")] = None,
    audit_seed: options.AuditSeed = None,
    openings: options.Openings = 1,
    reopen: options.Reopen = False,
    relative: options.Relative = None,
    allow_vacuous: options.AllowVacuous = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON on standard output.")] = False,
    key: options.PlanKey = None,
    tsa: options.Tsa = None,
    tsa_root: options.TsaRoot = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Measure and certify an unlearned model from any other tool: one candidate, no search. Then froc audit report signs it.

    The queries are divided as froc search divides them, and opened once: several models compared on the same task need
    --openings, said before the first. The model's files are copied into the run as they are.
    """
    from dataclasses import replace

    from cli import jobs
    from cli.searching import Screen, finish, signature
    from search.external import Given
    from search.folder import Folder
    from search.plan import draw_of, label_of
    from search.run import run
    from search.settings import Settings

    defined = words.definitions(risk or [])
    settings = Settings(
        budget=words.budgets(budget, profile, defined), confidence=confidence,
        metrics=words.per_risk(metric or [], "metric", str) | defined, trials=1, candidates=1, sampler="random", pruner="none",
        bound=bound, population=words.per_risk(population or [], "population", str), radius=radius, joint=joint,
        share=search_share, openings=openings, reopen=reopen, sweep=False, allow_vacuous=allow_vacuous,
        relative=tuple(relative or ()),
    )  # fmt: skip
    settings.check()
    Folder(out).refuse_unwritable()
    given = Given(unlearned)
    with Screen(quiet, signature(out, key, tsa, tsa_root)) as screen:
        _refuse_open(given)
        machine = jobs.Machine(device, dtype, executor="inline")
        job = jobs.job(
            settings,
            task,
            base,
            split_seed,
            machine,
            screen.training,
            data,
            unit or (),
            audit_seed=audit_seed,
            given=given.digest,
            label=label_of(Folder(out)),
            draw=draw_of(Folder(out).read(Folder(out).plan)),
        )
        certificate = run(replace(job, given=given, space={}, notes=(*job.notes, *given.notes)), out, screen)
    finish(out, certificate, json_, quiet)


def _refuse_open(given: "Given") -> None:
    """InputError for a folder that no report could be about, before anything is measured."""
    from audit import model_folder

    # also where there is no folder
    if not given.digest or given.adapted:
        return
    try:
        model_folder.refuse_open(given.names)
        model_folder.refuse_content(given.folder, given.names)
    except VerificationError as error:
        raise InputError(f"{given.folder}: {error}") from error


@app.command("report", epilog=REPORT_EXAMPLES)
def report(
    run: Annotated[Path, typer.Argument(help="Finished run folder.")],
    key: options.Signer,
    out: Annotated[Path, typer.Option(help="Folder that the bundle is put in.")] = Path(),
    name: Annotated[str | None, typer.Option(help="Name of the bundle.", show_default="task and plan digest")] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration to report on.", show_default="the chosen one")
    ] = None,
    role: Annotated[str, typer.Option(help="engineer, approver or auditor.")] = "engineer",
    sequence: Annotated[int, typer.Option(help="Number of this report in its series.")] = 1,
    plan_key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key of another person who signed the plan (repeatable).", show_default=False),
    ] = None,
    comparison: Annotated[
        Path | None, typer.Option(help="Folder of froc compare, to be signed with it.", show_default=False)
    ] = None,
    small: Annotated[
        bool,
        typer.Option(
            "--allow-small-sample", help="Report although fewer than 50 units were measured; the report says so."
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Build and sign the audit bundle of a run. It holds no forgotten text and verifies without the forget set."""
    from audit import evidence, signing

    bundle = evidence.build(
        run, out, key, password=words.password(), name=name, config=config, role=role,
        sequence=sequence, comparison=comparison, trusted=plan_key or (), small=small,
    )  # fmt: skip
    if json_:
        words.emit({"bundle": str(bundle), "page": str(bundle / "report.html")})
    else:
        words.results.print(f"bundle {bundle}   page {bundle / 'report.html'}", soft_wrap=True)
        model_too = f" --model {run / 'model'}" if (run / "model").is_dir() else ""
        check = f"froc audit verify {bundle} --key {signing.public_place(key)}{model_too}"
        words.results.print(f"anyone can check it: {check}", soft_wrap=True)


@app.command("sign", epilog=SIGN_EXAMPLES)
def sign(
    bundle: options.Bundle,
    key: options.Signer,
    signed_by: options.SignedBy = None,
    trust: options.Trust = None,
    model: options.ReportedModel = None,
    json_: options.Json = False,
) -> None:
    """Verify a bundle and sign the same bytes with a second person's key. Its role is what verifiers' trust files say.

    Exit 4: it does not verify, and was not signed.
    """

    from audit import countersigning

    verified = countersigning.countersign(
        bundle, key, reexecuting.trusted(signed_by, trust), password=words.password(), model=model
    )
    if json_:
        words.emit({"bundle": str(bundle), "verdict": verified.verdict, "model_checked": verified.model_checked})
    else:
        words.results.print(f"verified and signed {bundle}, which says [bold]{verified.verdict}[/]", soft_wrap=True)
        if not verified.model_checked:
            words.results.print("the model was not compared: give --model DIR to check its files", soft_wrap=True)


@app.command("stamp", epilog=STAMP_EXAMPLES)
def stamp(
    bundle: options.Bundle,
    tsa: Annotated[
        str | None, typer.Option("--tsa", help="Address of a time-stamping authority (RFC 3161).", show_default=False)
    ] = None,
    tsa_root: options.TsaRoot = None,
    requests: Annotated[
        Path | None, typer.Option(help="Folder that requests are written to, one per signature.", show_default=False)
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(help="Folder with the answers to them, of the same names and .tsr.", show_default=False),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Have an independent authority stamp each signature of a report that has no time stamp yet; nothing else changes.

    Whoever pins the authority in the trust file then knows when the signatures existed at the latest, so that they still
    count after their keys have expired or been revoked.
    """
    from audit import countersigning, timestamps
    from cli.searching import stamper

    if sum(some is not None for some in (tsa, requests, responses)) != 1:
        raise InputError("give --tsa with the authority's address, or --requests, or --responses")
    if requests is not None:
        made = countersigning.write_requests(bundle, requests)
    elif responses is not None:
        if tsa_root is None:
            raise InputError("--responses needs --tsa-root: the authority's root certificate")
        made = countersigning.take_responses(bundle, responses, timestamps.Authority(timestamps.read(tsa_root)))
    else:
        ask = stamper(tsa, tsa_root)
        assert ask is not None
        made = countersigning.stamp(bundle, ask)
    if json_:
        words.emit({"bundle": str(bundle), "files": made})
    else:
        words.results.print("\n".join(f"wrote {name}" for name in made), soft_wrap=True)


@app.command("verify", epilog=VERIFY_EXAMPLES)
def verify(
    bundle: options.Bundle,
    key: options.TrustedKey = None,
    trust: options.Trust = None,
    model: options.ReportedModel = None,
    threshold: Annotated[int, typer.Option(help="How many of the keys must have signed.")] = 1,
    min_sequence: Annotated[int, typer.Option(help="Refuse reports older than this one of their series.")] = 1,
    audit_seed: Annotated[
        int | None, typer.Option(help="Seed that you gave for the draw; the plan must say it.", show_default=False)
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            help="Most losses that may differ, by the bound of who measured again, for L5 (0.05: 5 % with 95 % confidence)."
        ),
    ] = 0.05,
    level: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=5,
            help="Exit 3 unless this level of assurance is reached: 4 or 5, say (repeatable).",
            show_default=False,
        ),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Check a bundle: signatures, every file, every number computed again, the model. Needs no GPU and no torch.

    Exit 0: verified, and the report says PASS. Exit 3: verified, but it does not say PASS. Exit 4: does not verify.
    """
    from audit import verification

    found = verification.verify(
        bundle, keys=key or (), trust=trust, model=model, threshold=threshold, min_sequence=min_sequence,
        audit_seed=audit_seed, share=share,
    )  # fmt: skip
    if json_:
        checks = [{"number": c.number, "name": c.name, "seen": c.seen} for c in found.checks]
        words.emit(
            {"verdict": found.verdict, "checks": checks, "model_checked": found.model_checked, "tree": found.tree,
             "fingerprint": found.fingerprint, "plan": found.plan_status, "control": found.facts.plan.control is not None,
             "assurance": found.assurance, "levels": {one.name: one.holds for one in found.levels}, "reexecution": found.reexecution and found.reexecution.sentence,
             "signers": [{"keyid": keyid, "role": found.roles.get(keyid)} for keyid in found.signers]}
        )  # fmt: skip
    else:
        table = Table(box=None, header_style="bold")
        for column in ("", "check", "seen"):
            table.add_column(column)
        for check in found.checks:
            table.add_row(str(check.number), check.name, words.visible(check.seen))
        words.results.print(table)
        for keyid in found.signers:
            role = found.roles.get(keyid, "a trusted key")
            words.results.print(f"signed by {role} {keyid}", soft_wrap=True)
        if found.reexecution:
            words.results.print(f"measured again by {found.reexecution.outcome.keyid}", soft_wrap=True)
        words.results.print(
            f"verified; the report says [bold]{found.verdict}[/]; plan {found.plan_status}; losses {found.assurance}",
            soft_wrap=True,
        )
        for one in found.levels:
            words.results.print(f"{one.name} {'holds' if one.holds else 'is not reached'}: {one.words}", soft_wrap=True)
    if found.verdict != "PASS":
        raise NotCertifiedError(f"the report verifies and says {found.verdict}")
    if found.facts.plan.control is None:
        raise NotCertifiedError(
            "the report verifies and says PASS, but its plan did not ask what the base model shows: nothing says that there was "
            "anything to remove (reports of older versions are so; whoever makes one today leaves it out)"
        )
    if found.facts.files and not found.facts.seal.base_weights_digest:
        raise NotCertifiedError(
            "the report verifies and says PASS, but no digest of the model's weights was sealed: nothing ties the losses to this model "
            "(reports of older versions are so; whoever makes one today leaves it out)"
        )
    if found.reexecution and found.reexecution.differed:
        raise NotCertifiedError(
            f"the report verifies, but its losses were not found again: {found.reexecution.sentence}"
        )
    for one in found.levels:
        if one.number in (level or ()) and not one.holds:
            raise NotCertifiedError(f"the report verifies, but does not reach {one.name}: {one.words}")
