"""Counts of a re-execution, against the rows that its seed draws."""

from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import redraw, reexecution
from froc.errors import VerificationError
from tests.audit.test_redraw import LOSSES, ROWS


def said(differed: int, largest: int, **change: Any) -> Any:
    """A statement about all rows drawn together, as older ones are."""
    rows = len(ROWS)
    document = redraw.counted_together(LOSSES, 7, rows, None, differed, largest) | change
    return SimpleNamespace(
        groups=None, each=None, rows=rows, differed=differed, largest=largest, lines=document["lines"],
        model_dump=lambda by_alias: document,
    )  # fmt: skip


def refuse(statement: Any) -> None:
    reexecution._refuse_counts(statement, LOSSES, None, redraw.EVERYTHING, 7)


@pytest.mark.parametrize(("differed", "largest"), [(0, 0), (1, 1), (12, 1000)])
def test_up_to_all_rows_may_differ(differed: int, largest: int) -> None:
    refuse(said(differed, largest))


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        # none differs by something, or one by nothing
        (said(0, 5), "reexecution-counts"), (said(3, 0), "reexecution-counts"),
        (said(1, 5, bound="0.01"), "reexecution-bound"), (said(1, 5, lines="0" * 64), "reexecution-draw"),
    ],
)  # fmt: skip
def test_counts_that_do_not_fit_are_refused(statement: Any, check: str) -> None:
    with pytest.raises(VerificationError, match=check):
        refuse(statement)
