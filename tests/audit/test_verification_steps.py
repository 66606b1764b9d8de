"""Unexpected errors during a verification: each is a refusal that names its step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import verification
from froc.audit.cross_checks import STEPS
from froc.errors import VerificationError


def test_an_unexpected_error_is_a_refusal_at_the_first_step_that_did_not_hold(
    good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(verification, "_check", broken)
    with pytest.raises(VerificationError, match=r"^failed-files: step 1 could not be done \(ZeroDivisionError\)"):
        good.verify()


@pytest.mark.parametrize(
    ("done", "more", "step"),
    [
        (0, (), 1), (2, (), 3),
        # the step after the last one that held; the last step where all held
        (len(STEPS), (), len(STEPS)),
        (STEPS.index("timestamps"), ("report.tsr",), STEPS.index("timestamps") + 1),
        (STEPS.index("timestamps"), (), STEPS.index("timestamps") + 2),
        (STEPS.index("comparison"), ("comparison.json",), STEPS.index("comparison") + 1),
        (STEPS.index("comparison"), (), STEPS.index("comparison") + 2),
    ],
)  # fmt: skip
def test_the_step_that_did_not_hold_is_the_next_one_that_the_bundle_has(
    done: int, more: tuple[str, ...], step: int, tmp_path: Path
) -> None:
    for name in more:
        (tmp_path / name).touch()
    log: Any = SimpleNamespace(checks=[SimpleNamespace(number=number) for number in range(1, done + 1)])
    assert verification._step(log, tmp_path, tmp_path) == STEPS[step - 1]


def test_without_a_model_the_step_of_the_model_is_left_out(tmp_path: Path) -> None:
    place = STEPS.index("model")
    log: Any = SimpleNamespace(checks=[SimpleNamespace(number=place)])
    assert verification._step(log, tmp_path, tmp_path) == "model"
    assert verification._step(log, tmp_path, None) != "model"
