"""The page with a line about its verification."""

from froc.audit import rendering
from froc.audit.exports import ExportContext
from froc.audit.verification import Result


def write(result: Result, context: ExportContext) -> str:
    """report.html with the results of the checks: a copy for the reader, not part of a bundle."""
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
