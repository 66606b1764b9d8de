"""On which side of the split a row is: its own text decides, and nobody else's edit moves it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc.data.normal_form import normal_form
from froc.data.splits import keyed_queries, split
from froc.data.task import FORGETTING, UTILITY, Task
from froc.errors import InputError
from tests.data.test_opening_ledger import EDITS, TASK, made, rows


def sides(task: Task, share: float = 0.2) -> dict[tuple[str, str, str], bool]:
    """(pool, normal form) -> whether the search looks at it."""
    view, sealed = split(task, share)
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    parts = ((view.queries, True), (opened, False))
    return {
        (pool, normal_form(q.row.question), normal_form(q.row.answer)): side
        for part, side in parts
        for pool, values in part.items()
        for q in values
    }


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_moves_no_row_to_the_other_side(edit: str) -> None:
    before = sides(TASK)
    after = sides(made(EDITS[edit](rows("jardin")), EDITS[edit](rows("maison"))))
    assert len(before.keys() & after.keys()) >= len(before) - 2
    assert {key: before[key] for key in before.keys() & after.keys()} == {
        key: after[key] for key in before.keys() & after.keys()
    }


@given(place=st.integers(0, 59), text=st.text(min_size=1, max_size=5), seed=st.integers(0, 99))
def test_editing_one_row_moves_no_other(place: int, text: str, seed: int) -> None:
    values = rows("jardin")
    values[place] = replace(values[place], question=values[place].question + "x" + text)
    before, after = sides(made(rows("jardin"), rows("maison"), seed)), sides(made(values, rows("maison"), seed))
    assert sum(before.get(key) != side for key, side in after.items()) <= 1


def test_a_unit_that_pools_share_is_on_one_side() -> None:
    shared = rows("jardin")
    for units in ("query", "group"):
        task = made(shared, [*shared, *rows("maison", 300)], units=units)
        task = replace(task, units={FORGETTING: units, UTILITY: units})
        result: dict[str, set[bool]] = {}
        view, sealed = split(task, 0.2)
        opened = sealed.open({"calibration": sealed.digests, "candidates": []})
        for part, side in ((view.queries, True), (opened, False)):
            for q in (q for values in part.values() for q in values):
                result.setdefault(q.row.group if units == "group" else q.row.question, set()).add(side)
        assert all(len(item) == 1 for item in result.values())
        assert {True} in result.values()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_kept_on_average(share: float) -> None:
    """Binomial: four standard deviations, over 20,000 places in all."""
    count = 0
    for seed in range(20):
        task = made(rows("jardin", 500), rows("maison", 500), seed)
        count += sum(q.place < share for pool in task.queries for q in keyed_queries(task, pool))
    assert abs(count - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("later", [0, 2])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
def test_a_handful_of_units_has_some_on_every_side(count: int, later: int) -> None:
    for seed in range(50):
        task = made(rows("jardin", count), rows("maison", count), seed)
        if count < later + 2:
            with pytest.raises(InputError, match="too few"):
                split(task, 0.01, later=later)
            continue
        view, sealed = split(task, 0.01, later=later)
        assert min(len(queries_of_risk) for queries_of_risk in view.queries.values()) >= 1
        assert min(sealed.units.values()) >= 1
