"""Dates of a plan, its trials and its report, each a little too early or too late."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import chronology
from froc.audit.timestamps import Proven
from froc.errors import VerificationError

NINE = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)


def at(minutes: float) -> str:
    """The time that is so many minutes after nine o'clock."""
    return f"{NINE + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


def trial(started: float, ended: float | None, seconds: str = "60") -> Any:
    return SimpleNamespace(trial=0, started=at(started), ended=None if ended is None else at(ended), seconds=seconds)


@pytest.mark.parametrize(
    ("signed", "line", "check"),
    [
        (0, trial(0, 1), None),
        (-1, trial(0, 1), "plan-signed-before-made"),
        (0, trial(-1, 1), "trial-before-plan"),
        (0, trial(2, 1), "trial-dates"),
        (0, trial(2, 2), None),
        # five minutes between two clocks are allowed
        (0, trial(0, 1, "360"), None),
        (0, trial(0, 1, "360.001"), "trial-duration"),
        # the log of an interrupted trial has no end: its start counts
        (0, trial(0, None, "300"), None),
        (0, trial(0, None, "300.001"), "trial-duration"),
    ],
)
def test_a_trial_is_after_its_plan_and_no_longer_than_its_dates_allow(
    signed: float, line: Any, check: str | None
) -> None:
    if check is None:
        chronology.check_run(at(0), at(signed), [line])
        return
    with pytest.raises(VerificationError, match=f"^{check}"):
        chronology.check_run(at(0), at(signed), [line])


TEN_YEARS = 3660 * 24 * 60


@pytest.mark.parametrize(
    ("expires", "signed", "ended", "check"),
    [
        (TEN_YEARS, 0, 0, None),
        (TEN_YEARS + 0.02, 0, 0, "expires-too-late"),
        (60, 5, 0, None),
        (60, 5.02, 0, "plan-after-report"),
        (60, 0, 5, None),
        (60, 0, 5.02, "trial-after-report"),
    ],
)
def test_a_report_is_later_than_its_plan_and_trials_and_expires_within_ten_years(
    expires: float, signed: float, ended: float, check: str | None
) -> None:
    asserted: Any = SimpleNamespace(issued=at(0), expires=at(expires))
    if check is None:
        chronology.check_report(asserted, at(signed), [trial(-9, ended)], Proven())
        return
    with pytest.raises(VerificationError, match=f"^{check}"):
        chronology.check_report(asserted, at(signed), [trial(-9, ended)], Proven())


@pytest.mark.parametrize("kind", ["plan", "report"])
@pytest.mark.parametrize(("stamped", "holds"), [(-5, True), (-5.02, False), (5, True)])
def test_nothing_is_dated_after_its_time_stamp(kind: str, stamped: float, holds: bool) -> None:
    """The earliest of several counts."""
    asserted: Any = SimpleNamespace(issued=at(0), expires=at(60))
    times = {"a": NINE + timedelta(minutes=stamped), "b": NINE + timedelta(minutes=30)}
    proven = Proven(plan=times) if kind == "plan" else Proven(report=times)
    if holds:
        chronology.check_report(asserted, at(0), [], proven)
        return
    with pytest.raises(VerificationError, match=f"^timestamp-before-date: the {kind} is dated"):
        chronology.check_report(asserted, at(0), [], proven)
