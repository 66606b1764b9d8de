"""The sealed split: disjoint by unit, fixed by the task and its seed, out of reach without a seal."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from froc.data.splits import SearchView, renamed, split
from froc.data.task import FORGETTING, UTILITY, Row, Task, Unit
from froc.errors import InputError


def _task(groups: int = 12, per: int = 5, unit: Unit = "query", seed: int = 0) -> Task:
    rows = tuple(Row(f"q{g}-{i}", f"a{g}-{i}", f"g{g}") for g in range(groups) for i in range(per))
    units: dict[str, Unit] = {"forgetting": unit, "utility": "query"}
    return Task("t", (Row("x", "y"),), (Row("v", "w"),), {"forgetting": rows, "utility": rows}, units, split_seed=seed)


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.01, 0.99), unit=st.sampled_from(["query", "group"]), seed=st.integers(0, 5))
def test_parts_are_disjoint_by_unit_and_whole(share: float, unit: Unit, seed: int) -> None:
    task = _task(unit=unit, seed=seed)
    view, sealed = split(task, share)
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    for risk, rows in task.queries.items():
        searched, calibrated = view.queries[risk], opened[risk]
        assert searched
        assert calibrated
        assert not {q.unit for q in searched} & {q.unit for q in calibrated}
        assert {q.row for q in searched} | {q.row for q in calibrated} == set(rows)
        assert len(searched) + len(calibrated) == len(rows)


def test_fixed_by_the_task_and_its_seed() -> None:
    first, again, division = split(_task(), 0.2)[1], split(_task(), 0.2)[1], split(_task(seed=1), 0.2)[1]
    assert first.digests == again.digests
    assert first.digests != division.digests


def test_one_query_more_changes_the_key_of_all() -> None:
    """Ids are keyed by the whole content: who lacks the data cannot tell whether a guessed text is among them."""
    task = _task()
    more = replace(task, forget=(*task.forget, Row("another", "row")))
    ids = {q.id for q in split(task, 0.2)[0].queries["forgetting"]}
    assert not ids & {q.id for q in split(more, 0.2)[0].queries["forgetting"]}


@pytest.mark.parametrize("unit", ["query", "group"])
def test_renamed_queries_are_the_same_queries(unit: Unit) -> None:
    """Two labels give ids that nobody without the data can match; what is searched and sealed stays the same."""
    task = _task(unit=unit)
    view, sealed = split(task, 0.2)
    parts = {label: renamed(view, sealed, task, label) for label in ("one", "two")}
    again = renamed(view, sealed, task, "one")
    names: list[set[str]] = []
    for result, held in ((view, sealed), *parts.values()):
        opened = held.open({"calibration": held.digests, "candidates": []})
        for risk in task.queries:
            assert {q.row for q in result.queries[risk]} == {q.row for q in view.queries[risk]}
            assert [q.id for q in opened[risk]] == sorted(q.id for q in opened[risk])
            assert all((q.unit == q.id) == (task.units[risk] == "query") for q in opened[risk])
        assert held.units == sealed.units
        assert replace(held.counted, ids={}) == replace(sealed.counted, ids={})
        assert held.counted.ids == {risk: {q.id for q in values} for risk, values in opened.items()}
        values = [q for part in (result.queries, opened) for queries in part.values() for q in queries]
        names.append({name for q in values for name in (q.id, q.unit)})
    assert not names[0] & names[1]
    assert not names[1] & names[2]
    assert not names[0] & names[2]
    assert again[0] == parts["one"][0]
    assert again[1].digests == parts["one"][1].digests
    assert (sealed.label, again[1].label) == (None, "one")
    changed = replace(task, forget=(*task.forget, Row("another", "row")))
    assert renamed(view, sealed, changed, "one")[1].digests != again[1].digests


def test_the_search_cannot_reach_the_calibration_queries() -> None:
    # earlier: rows that earlier runs trained on; retrained: where a control model lies
    named = {"forget", "retain", "refusals", "queries", "template", "holdout", "earlier", "retrained"}
    assert {f.name for f in fields(SearchView)} == named
    view, sealed = split(_task(), 0.2)
    assert not any("query" in name.lower() and not name.startswith("_") for name in vars(sealed))
    incomplete: list[dict[str, Any]] = [
        {}, {"candidates": []}, {"calibration": sealed.digests}, {"calibration": {}, "candidates": []},
    ]  # fmt: skip
    for seal in incomplete:
        with pytest.raises(InputError, match="seal"):
            sealed.open(seal)
    assert not hasattr(view, "calibration")


def test_a_query_does_not_show_its_text() -> None:
    query = split(_task(), 0.2)[0].queries["forgetting"][0]
    assert query.row.question not in repr(query)
    assert len(query.id) == 16


def test_openings_are_counted_by_the_queries_alone(task: Task) -> None:
    def looked(task: Task, share: float) -> dict[str, frozenset[str]]:
        counted = split(task, share)[1].counted
        assert not any(counted.opened[pool] & counted.searched[pool] for pool in counted.opened)
        return {pool: counted.opened[pool] | counted.searched[pool] for pool in counted.opened}

    whole = looked(task, 0.2)
    assert {pool: len(values) for pool, values in whole.items()} == {
        pool: len(values) for pool, values in task.queries.items()
    }
    assert looked(replace(task, split_seed=5), 0.2) == whole
    assert looked(replace(task, retain=task.retain[1:]), 0.3) == whole
    second = {**task.queries, FORGETTING: task.queries[FORGETTING][1:]}
    fewer = looked(replace(task, queries=second), 0.2)
    assert len(whole[FORGETTING] - fewer[FORGETTING]) == 1
    assert fewer[UTILITY] == whole[UTILITY]
