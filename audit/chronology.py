"""Consistency of a bundle's dates: effects are not dated before causes.

Dates are the signer's claim. They have to agree with each other, and with the time stamps that a verifier trusts:
created <= signed <= started <= ended <= issued <= now. A few minutes between clocks of different machines are allowed.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from froc.audit.bundle_files import Trial, moment
from froc.audit.documents import Asserted
from froc.audit.timestamps import Proven
from froc.errors import VerificationError

CLOCK_SKEW = timedelta(minutes=5)
"""Allowed difference between the clocks of two machines."""
LONGEST = timedelta(days=3660)
"""Longest validity of a report: ten years."""


def check_run(created: str, signed: str, trials: Sequence[Trial]) -> None:
    """Check dates of plan and trials. created, signed: of the plan, RFC 3339 in UTC. VerificationError for a contradiction."""
    if moment(signed) < moment(created):
        raise VerificationError("plan-signed-before-made", f"the plan was signed at {signed}, and made at {created}")
    for trial in trials:
        if moment(trial.started) < moment(created):
            raise VerificationError("trial-before-plan", f"trial {trial.trial} was started before the plan existed")
        if trial.ended is not None and moment(trial.ended) < moment(trial.started):
            raise VerificationError("trial-dates", f"trial {trial.trial} ended before it was started")
        if _longer(trial):
            raise VerificationError("trial-duration", f"trial {trial.trial} took longer than from its start to its end")


def _longer(trial: Trial) -> bool:
    """Whether a trial's duration exceeds what its dates allow, with `CLOCK_SKEW`."""
    room = moment(trial.ended or trial.started) - moment(trial.started) + CLOCK_SKEW
    return Decimal(trial.seconds) > Decimal(room.total_seconds())


def check_report(
    asserted: Asserted, signed: str, trials: Sequence[Trial], proven: Proven, stages: Sequence[str] = ()
) -> None:
    """Check the report's dates against those of plan and trials, and against time stamps.

    signed: the plan's date. stages: dates of the further stages.
    """
    issued = moment(asserted.issued)
    if moment(asserted.expires) - issued > LONGEST:
        raise VerificationError(
            "expires-too-late", f"the report is said to be of use for more than {LONGEST.days} days"
        )
    if moment(signed) > issued + CLOCK_SKEW:
        raise VerificationError("plan-after-report", f"the plan was signed at {signed}, after the report was issued")
    last = max((trial.ended or trial.started for trial in trials), default=signed)
    if moment(last) > issued + CLOCK_SKEW:
        raise VerificationError("trial-after-report", f"a trial is dated {last}, after the report was issued")
    if any(moment(created) > issued + CLOCK_SKEW for created in stages):
        raise VerificationError("stages-after-report", "a further stage was sealed after the report was issued")
    for name, dated, times in (("plan", signed, proven.plan), ("report", asserted.issued, proven.report)):
        stamped = min(times.values(), default=None)
        if stamped is not None and moment(dated) > stamped + CLOCK_SKEW:
            raise VerificationError("timestamp-before-date", f"the {name} is dated {dated}, and was stamped before")
