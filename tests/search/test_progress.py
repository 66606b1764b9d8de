"""The display of a search's progress: the best configuration so far."""

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from froc.search.progress import ProgressDisplay
from froc.search.run_folder import TrialRecord

RISKS = ("forgetting", "utility")


def _trial(number: int, forgetting: float, mixed: float | None = None) -> TrialRecord:
    """A trial that has ended, with a mix of its own where one is given."""
    search = dict.fromkeys(RISKS, forgetting)
    variants: list[dict[str, Any]] = (
        [{"config": f"c{number:04d}-s3-m0500", "stop": 3, "mix": 0.5, "search": dict.fromkeys(RISKS, mixed), "averages": None}]
        if mixed is not None else []
    )  # fmt: skip
    return TrialRecord(
        number, 1, f"c{number:04d}", "npo", {}, 0, "", "", status="complete", search=search, variants=variants
    )


@pytest.fixture
def display() -> ProgressDisplay:
    display = ProgressDisplay(Console(file=io.StringIO(), width=160), quiet=False)
    display._budget = dict.fromkeys(RISKS, 0.1)
    return display


def test_the_best_so_far_is_over_all_trials_and_their_mixes(display: ProgressDisplay) -> None:
    log = [_trial(0, 0.4), _trial(1, 0.5, mixed=0.2), _trial(2, 0.3)]
    assert display._best(log[:1]) == "best so far forgetting 0.400, utility 0.400"
    assert display._best(log[:2]) == "best so far forgetting 0.200, utility 0.200"
    assert display._best(log) == "best so far forgetting 0.200, utility 0.200"
    assert display._best([]) == ""


def test_a_trial_is_looked_at_once(display: ProgressDisplay, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    best_of = display._best_of

    def counted(record: TrialRecord) -> Mapping[str, float] | None:
        seen.append(record.config)
        return best_of(record)

    monkeypatch.setattr(display, "_best_of", counted)
    log = [_trial(number, 0.4) for number in range(4)]
    for count in range(1, 5):
        display._best(log[:count])
    assert seen == ["c0000", "c0001", "c0002", "c0003"]
