"""Counts of a re-execution, against the rows that its seed draws."""

from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import redraw, reexecution
from froc.errors import VerificationError
from tests.audit.test_redraw import LOSSES, ROWS


def statement(differed: int, largest: int, **change: Any) -> Any:
    """A statement about all rows drawn together, as older ones are."""
    rows = len(ROWS)
    fields = redraw.counted_together(LOSSES, 7, rows, None, differed, largest) | change
    return SimpleNamespace(
        groups=None, each=None, rows=rows, differed=differed, largest=largest, lines=fields["lines"],
        model_dump=lambda by_alias: fields,
    )  # fmt: skip


def refuse(document: Any) -> None:
    reexecution._refuse_counts(document, LOSSES, None, redraw.EVERYTHING, 7)


@pytest.mark.parametrize(("differed", "largest"), [(0, 0), (1, 1), (12, 1000)])
def test_up_to_all_rows_may_differ(differed: int, largest: int) -> None:
    refuse(statement(differed, largest))


@pytest.mark.parametrize(
    ("document", "check"),
    [
        # no row differs, by 5 thousandths at most; or three do, by 0
        (statement(0, 5), "reexecution-counts"), (statement(3, 0), "reexecution-counts"),
        (statement(1, 5, bound="0.01"), "reexecution-bound"), (statement(1, 5, lines="0" * 64), "reexecution-draw"),
    ],
)  # fmt: skip
def test_counts_that_do_not_fit_are_refused(document: Any, check: str) -> None:
    with pytest.raises(VerificationError, match=check):
        refuse(document)
