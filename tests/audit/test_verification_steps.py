"""Errors on the way of a verification: none lets a report pass."""

from typing import Any

import pytest

from froc.audit import verification
from froc.errors import VerificationError


def test_an_error_that_nobody_foresaw_is_a_refusal_at_the_first_step_that_did_not_hold(
    good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(verification, "_check", broken)
    with pytest.raises(VerificationError, match=r"^failed-files: step 1 could not be done \(ZeroDivisionError\)"):
        good.verify()
