"""What earlier requests removed, as pools and rows: before any run."""

from dataclasses import replace
from typing import Any

import pytest

from froc.data import ledger_files, opening_ledger
from froc.data.continual import Past, after, risks
from froc.data.splits import Source, split
from froc.data.task import EARLIER, FORGETTING, UTILITY, Task
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.measuring.measurement import named
from tests.search.test_continual import TASKS
from tests.small_model import SMALL


def seen(task: Task) -> set[tuple[str, str]]:
    view, sealed = split(task, 0.2)
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    return {
        (q.row.question, q.row.answer) for part in (view.queries, opened) for queries in part.values() for q in queries
    }


def test_the_first_request_is_what_it_was() -> None:
    assert embedded_text.task().digest == "684c93f3a941b16c597a57c7e07101854f40ce63a492cb06d5a822cfae86378d"
    assert embedded_text.task(request=1) == embedded_text.task()


def test_each_request_asks_for_the_next_people_and_keeps_none_of_those_before() -> None:
    removed: set[str] = set()
    for task in TASKS:
        people = {row.group for row in task.forget}
        assert len(people) == SMALL.forgotten
        assert not people & removed
        removed |= people
        assert not removed & {row.group for row in (*task.retain, *task.queries[UTILITY])}
    with pytest.raises(InputError, match="people for 3 requests"):
        embedded_text.task(SMALL, request=4)
    with pytest.raises(InputError, match="write embedded:2"):
        embedded_text.request_of("embedded:two")


def test_what_is_measured_again_was_opened_by_no_run_of_the_chain() -> None:
    """Each later run opens the next part that the request's own run held back, and nothing that a run has looked at."""
    first, second, third = TASKS
    first_past, second_past = Past(first, 0.2, 2), Past(second, 0.2, 1)
    begun, held = split(first, 0.2, later=2)
    own = held.open({"calibration": held.digests, "candidates": []})
    looked = {q.id for q in (*begun.queries[FORGETTING], *own[FORGETTING])}
    at: list[Any] = [after(second, [first_past]).earlier, after(third, [first_past, second_past]).earlier]
    assert None not in at
    parts = [{q.id for q in earlier.sealed[0]} for earlier in at]
    assert all(len(part) >= 35 for part in parts)
    assert not looked & (parts[0] | parts[1])
    assert not parts[0] & parts[1]
    # the search of a later run may look at what the search of the first has looked at
    assert {q.id for q in at[0].searched[0]} == {q.id for q in begun.queries[FORGETTING]}


def test_rows_that_an_earlier_run_has_looked_at_are_measured_no_more() -> None:
    first, second, _ = TASKS
    shared = replace(
        second, queries={**second.queries, UTILITY: first.queries[UTILITY][:100] + second.queries[UTILITY]}
    )
    rows = tuple(
        dict.fromkeys(row for row in shared.queries[UTILITY] if row.group not in {r.group for r in second.forget})
    )
    shared = replace(shared, queries={**shared.queries, UTILITY: rows})
    begun, held = split(first, 0.2, later=1)
    own = held.open({"calibration": held.digests, "candidates": []})
    looked = {
        (q.row.question, q.row.answer) for part in (begun.queries, own) for queries in part.values() for q in queries
    }
    assert looked & seen(shared)
    assert not looked & seen(after(shared, [Past(first, 0.2, 1)]))


def test_queries_that_nothing_was_held_back_of_are_refused() -> None:
    with pytest.raises(InputError, match=r"held back none of them \(--later\).*--no-earlier"):
        after(TASKS[1], [Past(TASKS[0], 0.2)])
    with pytest.raises(InputError, match="only 1 part"):
        after(TASKS[2], [Past(TASKS[0], 0.2, 1), Past(TASKS[1], 0.2, 1)])


@pytest.mark.parametrize("pool", ["retain", "retain_queries", "forget_queries", "forget"])
def test_what_was_removed_is_neither_kept_nor_asked_for_again(pool: str) -> None:
    first, second, _ = TASKS
    old = first.queries[FORGETTING][0]
    queries = dict(second.queries)
    if pool.endswith("queries"):
        of = UTILITY if pool == "retain_queries" else FORGETTING
        wrong = replace(second, queries=queries | {of: (*queries[of][:3], old, *queries[of][3:])})
    else:
        rows = getattr(second, pool)
        changed: dict[str, Any] = {pool: (*rows[:3], old, *rows[3:])}
        wrong = replace(second, **changed)
    with pytest.raises(InputError, match=rf"{pool} row 4 of embedded:2 is also forget query 1 .*take it out of {pool}"):
        after(wrong, [Past(first, 0.2, 1)])


def test_a_row_that_was_trained_away_is_not_trained_on_again() -> None:
    first, second, _ = TASKS
    with pytest.raises(InputError, match="retain row 1 of embedded:2 is also forget row 5"):
        after(replace(second, retain=(first.forget[4], *second.retain)), [Past(first, 0.2, 1)])
    with pytest.raises(InputError, match="another template"):
        after(replace(second, template="Q: {question} A: {answer}"), [Past(first, 0.2, 1)])


def test_earlier_is_a_pool_of_measurements() -> None:
    measurements = named(
        [EARLIER, "earlier-2", "stored"], {FORGETTING: "probability", "stored": "rouge_l@quantization/earlier"}
    )
    assert [str(measurement) for measurement in measurements.values()] == [
        "probability/earlier", "probability/earlier-2", "rouge_l@quantization/earlier"
    ]  # fmt: skip
    assert not any(measurement.drop for measurement in measurements.values())
    assert risks(1) == (EARLIER,)
    assert risks(3) == ("earlier-1", "earlier-2", "earlier-3")
    with pytest.raises(InputError, match="--after RUN"):
        split(TASKS[0], 0.2, None, {EARLIER: Source(EARLIER)})
    with pytest.raises(InputError, match="1 earlier requests"):
        split(after(TASKS[1], [Past(TASKS[0], 0.2, 1)]), 0.2, None, {"earlier-2": Source("earlier-2")})


def test_each_earlier_request_is_a_pool_of_its_own() -> None:
    task = after(TASKS[2], [Past(TASKS[0], 0.2, 2), Past(TASKS[1], 0.2, 1)])
    pools = ("earlier-1", "earlier-2", EARLIER)
    view, sealed = split(task, 0.2, None, {risk: Source(risk) for risk in pools})
    assert set(view.queries[EARLIER]) == set(view.queries["earlier-1"]) | set(view.queries["earlier-2"])
    assert {q.row.group for q in view.queries["earlier-2"]} <= {row.group for row in TASKS[1].forget}
    assert view.earlier == (*TASKS[0].forget, *TASKS[1].forget)
    # the task's own queries are counted as ever, those of earlier requests in a pool of their own
    assert set(sealed.counted.opened) == {EARLIER}
    opened = split(task, 0.2, None, {risk: Source(risk) for risk in (FORGETTING, *pools)})[1].counted.opened
    assert set(opened) == {FORGETTING, EARLIER}
    assert opened[EARLIER] == sealed.counted.opened[EARLIER]


def test_openings_of_earlier_queries_are_counted_beside_any_task() -> None:
    first, second, beside = (
        {pool: frozenset(name)} for pool, name in ((FORGETTING, "a"), (FORGETTING, "b"), (EARLIER, "ac"))
    )
    assert opening_ledger.record(ledger_files.Counted(first | beside), "plan 1", "seal 1", 1, False).number == 1
    with pytest.raises(InputError, match=r"2 of 3 of these queries were opened before \(1 time"):
        opening_ledger.check(ledger_files.Counted(second | beside), "plan 2", 1, False)
    assert opening_ledger.record(ledger_files.Counted(second | beside), "plan 2", "seal 2", 1, True).number == 2
    # leaving the earlier request out hides no opening of the task's own queries
    with pytest.raises(InputError, match="1 time"):
        opening_ledger.check(ledger_files.Counted(first), "plan 3", 1, False)
    # and a request's own queries are another pool than what it left for later ones
    assert opening_ledger.by_others(ledger_files.Counted(first), "plan 2")
    assert not opening_ledger.by_others(ledger_files.Counted(first), "plan 1")
