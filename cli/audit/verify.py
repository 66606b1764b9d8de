"""The `audit verify` command: check a report, every file, every number, the model."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from froc.cli import options, words
from froc.cli.audit import evidence_options
from froc.errors import NotCertifiedError
from froc.risk.rounding import at_most

if TYPE_CHECKING:
    from froc.audit.verification import Result

EXAMPLES = """[bold]Examples[/]

froc audit verify NAME.froc-audit --key signer.pem.pub --model froc-run/model

froc audit verify NAME.froc-audit --key engineer.pub --key approver.pub --threshold 2 --json

froc audit verify NAME.froc-audit --trust trust.json --audit-seed 20261125
"""


def verify(
    bundle: evidence_options.Bundle,
    key: evidence_options.TrustedKey = None,
    trust: evidence_options.Trust = None,
    model: evidence_options.ReportedModel = None,
    threshold: Annotated[
        int, typer.Option(help="How many of the keys must have signed.", rich_help_panel=options.PLAN)
    ] = 1,
    min_sequence: Annotated[
        int,
        typer.Option(min=1, help="Refuse reports older than this one of their series.", rich_help_panel=options.PLAN),
    ] = 1,
    audit_seed: Annotated[
        int | None,
        typer.Option(
            help="Seed that you gave for the draw; the plan must say it.",
            show_default=False,
            rich_help_panel=options.PLAN,
        ),
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            help="Most losses that may differ, by the bound of who measured again, for L5 (0.05: 5 % with 95 % confidence).",
            rich_help_panel=options.RISKS,
        ),
    ] = 0.05,
    level: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=5,
            help="Exit 3 unless this level of assurance is reached: 4 or 5, say (repeatable).",
            show_default=False,
            rich_help_panel=options.RISKS,
        ),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Check a bundle: signatures, every file, every number computed again, the model. Needs no GPU and no torch.

    Exit 0: verified, and the report says PASS. Exit 3: verified, but it does not say PASS. Exit 4: does not verify.
    """
    from froc.audit import verification

    result = verification.verify(
        bundle, keys=key or (), trust=trust, model=model, threshold=threshold, min_sequence=min_sequence,
        audit_seed=audit_seed, share=share,
    )  # fmt: skip
    if json_:
        checks = [{"number": c.number, "name": c.name, "seen": c.seen} for c in result.checks]
        words.emit(
            {"verdict": result.verdict, "checks": checks, "model_checked": result.model_checked, "tree": result.tree, "reservations": list(result.reservations),
             "config": result.report["config"], "confidence": result.report["certificate"]["confidence"], "bounds": _reported(result),
             "weights_bound": result.facts.seal.base_weights_digest is not None,
             "fingerprint": result.fingerprint, "plan": result.plan_status, "control": result.facts.plan.control is not None,
             "assurance": result.assurance, "levels": {reached.name: reached.holds for reached in result.levels}, "reexecution": result.reexecution and result.reexecution.sentence,
             "signers": [{"keyid": keyid, "role": result.roles.get(keyid)} for keyid in result.signers]}
        )  # fmt: skip
    else:
        table = Table(box=None, header_style="bold")
        for column in ("", "check", "seen"):
            table.add_column(words.visible(column))
        for check in result.checks:
            table.add_row(*map(words.visible, (str(check.number), check.name, check.seen)))
        words.results.print(table)
        for keyid in result.signers:
            role = result.roles.get(keyid, "a trusted key")
            words.results.print(words.visible(f"signed by {role} {keyid}"), soft_wrap=True)
        if result.reexecution:
            words.results.print(words.visible(f"measured again by {result.reexecution.outcome.keyid}"), soft_wrap=True)
        words.results.print(
            f"verified; the report says [bold]{words.visible(result.verdict)}[/]; "
            + words.visible(f"plan {result.plan_status}; losses {result.assurance}"),
            soft_wrap=True,
        )
        for line in _bounds(result):
            words.results.print(words.visible(line), soft_wrap=True)
        for reached in result.levels:
            line = f"{reached.name} {'holds' if reached.holds else 'is not reached'}: {reached.words}"
            words.results.print(words.visible(line), soft_wrap=True)
    if result.verdict != "PASS":
        raise NotCertifiedError(f"the report verifies and says {result.verdict}")
    for reservation in result.reservations:
        differing = f": {result.reexecution.sentence}" if result.reexecution and result.reexecution.differed else ""
        raise NotCertifiedError(f"the report verifies and says PASS, but {reservation}{differing}")
    for reached in result.levels:
        if reached.number in (level or ()) and not reached.holds:
            raise NotCertifiedError(f"the report verifies, but does not reach {reached.name}: {reached.words}")


def _reported(result: "Result") -> dict[str, dict[str, str]]:
    """risk -> budget and the bound that holds for all candidates together, of the reported configuration; empty where none was tested."""
    certificate, config = result.report["certificate"], result.report["config"]
    candidate = next((entry for entry in certificate["candidates"] if entry["config"] == config), None)
    cur = candidate["cur"] if candidate else {}
    return {
        risk: {"budget": certificate["budget"][risk], "at_most": bounds["simultaneous"]}
        for risk, bounds in cur.items()
        if risk in certificate["budget"]
    }


def _bounds(result: "Result") -> list[str]:
    """The same in words."""
    certificate = result.report["certificate"]
    opening = certificate["opening"]
    planned = opening["number"] <= opening["planned"]
    sure = f"confidence {float(certificate['confidence']):g}" if planned else str(opening["statement"])
    from froc.audit.rendering.words import ABOVE

    above = any(float(numbers["at_most"]) > float(numbers["budget"]) for numbers in _reported(result).values())
    lines = [
        f"{result.report['config']}: {risk} at most {at_most(float(numbers['at_most']))} (budget {float(numbers['budget']):g}); {sure}"
        for risk, numbers in _reported(result).items()
    ]
    return [*lines, ABOVE] if result.verdict == "PASS" and above else lines
