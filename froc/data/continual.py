"""Queries about what earlier requests removed, as a third pool of a later request's task. Torch-free.

Only queries that no earlier run has measured are used. The base model of a later run was chosen by the earlier runs' losses,
calibration losses included, so a bound from the same losses would not be valid, and dividing the level over openings
does not help. Fresh queries are drawn where the population is known (the embedded task); otherwise the earlier run has held
them back (`--later K`), one part for each later request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from froc.data.splits import Draw, divide, keyed_queries
from froc.data.task import EARLIER, FORGETTING, Earlier, Query, Row, Task, Unit
from froc.errors import InputError

Pair = tuple[str, str]


@dataclass(frozen=True)
class Past:
    """An earlier request. share, later, draw: how its run divided the queries. fresh: its queries were drawn anew."""

    task: Task
    share: float
    later: int = 0
    fresh: bool = False
    draw: Draw = "by-row"


def after(task: Task, past: Sequence[Past]) -> Task:
    """The task with its earlier requests, in their order.

    Raises InputError where rows are both removed and kept, where queries repeat, or where no unmeasured queries are left.
    """
    for number, request in enumerate(past, start=1):
        _refuse_overlaps(task, request.task, number)
    parts = [_fresh(request, past[:place], len(past) - place) for place, request in enumerate(past)]
    earlier = Earlier(
        rows=tuple(chain.from_iterable(request.task.forget for request in past)),
        searched=tuple(first for first, _ in parts),
        sealed=tuple(second for _, second in parts),
        seen=_seen(past, len(past)),
    )
    units_by_request: dict[str, Unit] = {
        f"{EARLIER}-{k}": request.task.units[FORGETTING] for k, request in enumerate(past, start=1)
    }
    # over all requests: single queries are groups of one
    unit_of_all: Unit = "group" if "group" in units_by_request.values() else "query"
    return replace(task, earlier=earlier, units={**task.units, EARLIER: unit_of_all, **units_by_request})


def risks(requests: int) -> tuple[str, ...]:
    """One risk per earlier request, as a mean over all could hide one that has returned."""
    return (EARLIER,) if requests == 1 else tuple(f"{EARLIER}-{k}" for k in range(1, requests + 1))


def _fresh(request: Past, before: Sequence[Past], distance: int) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """Search queries of a request, and its sealed queries for the run `distance` runs after its own."""
    parts = _parts(request, FORGETTING, before)
    if request.fresh:
        return parts[0], parts[1]
    if distance > request.later:
        held = f"only {request.later} part(s) of them" if request.later else "none of them"
        raise InputError(
            f"the queries of {request.task.name} have been opened: its run held back {held} (--later), so nothing fresh is "
            "left to certify that it stays forgotten; --no-earlier goes on without, and every output says so"
        )
    return parts[0], parts[1 + distance]


def _seen(past: Sequence[Past], runs: int) -> frozenset[Pair]:
    """Question and answer of every row that the first `runs` runs of a chain have measured, in either split."""
    pairs: set[Pair] = set()
    for place, request in enumerate(past[:runs]):
        if request.fresh:
            continue
        for pool in request.task.queries:
            first, *sealed = _parts(request, pool, past[:place])
            # later runs have opened the next parts of the forgotten rows, and perhaps of the kept ones
            looked = [first, *sealed[: runs - place]]
            pairs |= {_pair(query.row) for query in chain.from_iterable(looked)}
    return frozenset(pairs)


def _parts(request: Past, pool: str, before: Sequence[Past]) -> list[tuple[Query, ...]]:
    """How a request's own run, after the requests `before`, divided a pool."""
    seen = _seen(before, len(before))
    queries = [query for query in keyed_queries(request.task, pool) if _pair(query.row) not in seen]
    return divide(queries, request.share, 0 if request.fresh else request.later, pool, request.draw)


def _refuse_overlaps(task: Task, old: Task, number: int) -> None:
    if task.format != old.format:
        raise InputError(
            f"request {number} ({old.name}) has another template, system message or template arguments; give both tasks the same ones in task.toml"
        )
    removed = {_pair(row): row.at("forget", k) for k, row in enumerate(old.forget, start=1)}
    removed |= {_pair(row): row.origin or f"forget query {k}" for k, row in enumerate(old.queries[FORGETTING], start=1)}
    queried = {_pair(row): row.origin or f"forget query {k}" for k, row in enumerate(old.queries[FORGETTING], start=1)}
    kept = {pool: rows for pool, rows in task.queries.items() if pool != FORGETTING}
    files: list[tuple[str, Sequence[Row], Mapping[Pair, str]]] = [("retain", task.retain, removed)]
    files += [("retain_queries", rows, removed) for rows in kept.values()]
    files += [("forget_queries", task.queries[FORGETTING], queried), ("forget", task.forget, queried)]
    for name, rows, others in files:
        for place, row in enumerate(rows, start=1):
            if _pair(row) in others:
                raise InputError(
                    f"{row.at(name, place)} of {task.name} is also {others[_pair(row)]} of request {number} ({old.name}), "
                    f"which was removed before; take it out of {name}"
                )


def _pair(row: Row) -> Pair:
    return row.key
