"""The display of a search's progress: the best configuration so far."""

import io
import time
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from froc.search import progress
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


def test_a_reader_of_a_file_is_told_what_goes_on_and_how_long_it_will_take(
    display: ProgressDisplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.2)
    written: Any = display._console.file
    with display:
        display.step("a trial takes an hour", 0, 0)
        display.step("training npo", 1, 40)
        deadline = time.monotonic() + 20
        while "left" not in written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    lines = written.getvalue().splitlines()
    assert lines[0] == "a trial takes an hour"
    assert any(line.startswith("training npo 1 of 40, 0 s so far, about ") for line in lines)
    assert not any(line.endswith("...") for line in lines)
    length = len(written.getvalue())
    time.sleep(0.5)
    assert len(written.getvalue()) == length


def _printed(display: ProgressDisplay) -> str:
    assert isinstance(display._console.file, io.StringIO)
    return display._console.file.getvalue()


def test_what_is_done_is_not_said_to_go_on(display: ProgressDisplay) -> None:
    display.step("trials", 3, 4)
    display.step("trials", 4, 4)
    display._say_now()
    assert _printed(display).splitlines()[-1] == "trials: done; what follows has taken 0 s so far"


def test_the_steps_of_the_next_trial_are_counted_from_its_beginning(display: ProgressDisplay) -> None:
    for done in (1, 2, 3, 1):
        display.step("training npo", done, 3)
    assert display._now[1] == 1
    assert display._progress.tasks[0].completed == 1
    display.step("measuring", 0, 2)
    assert "measuring (2) ..." in _printed(display)


def test_durations_are_said_in_the_unit_that_one_thinks_in() -> None:
    assert [progress.duration(s) for s in (5, 89, 91, 5399, 5401)] == ["5 s", "89 s", "2 min", "90 min", "1.5 h"]
