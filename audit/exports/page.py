"""The page with a verification line: what whoever verified has seen."""

from froc.audit import rendering
from froc.audit.exports import ExportContext
from froc.audit.verification import Result


def write(result: Result, context: ExportContext) -> str:
    """report.html, with what was checked; it is a copy for its reader, and part of no bundle."""
    seen = rendering.Verified(
        when=context.when,
        keys=[(result.roles.get(keyid, "a trusted key"), keyid) for keyid in result.signers],
        model=result.model_checked,
        level=", ".join(reached.name for reached in result.levels if reached.holds)
        + f"; losses {result.assurance.replace('_', '-')}"
        + "".join(f"; no plain pass: {reason}" for reason in result.reservations if result.verdict == "PASS"),
        checks=[(check.name, check.seen) for check in result.checks],
    )
    return rendering.html(result.report, result.facts, verified=seen)
