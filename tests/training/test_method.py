"""What a method says that it needs."""

import pytest

from froc.plugins import find
from froc.training.method import Method


@pytest.mark.parametrize(("name", "needs"), [("npo", False), ("gu(npo)", True), ("cure(grad_diff)", False)])
def test_second_moments_are_needed_by_filters_that_read_them(name: str, needs: bool) -> None:
    """Not by a method without a filter, nor by filters that read none."""
    assert ("second moments" in find(Method, name).needs()) is needs
