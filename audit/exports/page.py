"""The page with a verification line: what whoever verified has seen."""

from froc.audit import rendering
from froc.audit.exports import Given
from froc.audit.verification import Result


def write(found: Result, given: Given) -> str:
    """report.html, with what was checked; it is a copy for its reader, and part of no bundle."""
    seen = rendering.Verified(
        when=given.when,
        keys=[(found.roles.get(keyid, "a trusted key"), keyid) for keyid in found.signers],
        model=found.model_checked,
        level=", ".join(one.name for one in found.levels if one.holds)
        + f"; losses {found.assurance.replace('_', '-')}"
        + "".join(f"; no plain pass: {reason}" for reason in found.reservations if found.verdict == "PASS"),
        checks=[(check.name, check.seen) for check in found.checks],
    )
    return rendering.html(found.report, found.facts, verified=seen)
