"""The sealed split: search queries, sealed calibration queries, and queries held back for later requests. Torch-free."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import polars as pl

from froc import hashing
from froc.data.ledger_files import Counted
from froc.data.normal_form import content, normal_form
from froc.data.prompts import PromptFormat
from froc.data.rows import Row as Row
from froc.data.task import EARLIER, Earlier, Query, Task, request_of
from froc.errors import InputError

Draw = Literal["by-row", "in-order"]
"""How queries are divided. `in-order`: the division of older versions (the first share in the order of the ids), which is kept to
read, repeat and continue their runs."""


HELD_FRACTION = 0.25
"""Fraction of facts that an adversary may hold."""


@dataclass(frozen=True)
class SearchView:
    """The part of a task that a search may use: without the calibration queries.

    template: the prompt format. retrained: folder of a model that was trained like the base model but without the forget
    rows, as a control, where the task has one.
    """

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    refusals: tuple[str, ...]
    queries: Mapping[str, tuple[Query, ...]]
    template: PromptFormat
    holdout: tuple[Row, ...] = ()
    earlier: tuple[Row, ...] = ()
    retrained: str | None = None


@dataclass(frozen=True)
class Source:
    """Queries that a risk is measured on. pool: their pool; unheld: only those about facts that no adversary holds."""

    pool: str
    unheld: bool = False


@dataclass(frozen=True)
class EarlierSplit:
    """How an earlier search divided its queries: what it looked at has led to the present search and cannot be sealed for it."""

    split_seed: int
    share: float


def held(row: Row) -> bool:
    """Whether an adversary with data may hold the fact of a row: one in four, by a hash of group and answer.

    Training rows and queries about the same fact agree, so facts that an adversary holds are never measured.

    >>> [held(Row("Who is she?", "a baker", group=name)) for name in ("Ada", "Ben", "Cleo", "Dan")]
    [False, False, True, False]
    """
    return int(hashing.hmac_sha256(b"froc held", row.group, row.answer)[:8], 16) < HELD_FRACTION * 2**32


class Sealed:
    """The calibration queries, which are returned only for a seal.

    counted: by what the opening ledger counts the sealed and the searched queries (`froc.data.opening_ledger`): another
        search share, split, sample or risk is a further look at the same queries.
    listed: risk -> number of all its units.
    largest: risk -> largest number of queries of a unit, searched or sealed.
    label: by which query ids were renamed (`renamed`); None for the original ids.
    draw: how the queries were divided.
    """

    def __init__(
        self,
        queries: Mapping[str, tuple[Query, ...]],
        counted: Counted,
        listed: Mapping[str, int],
        largest: Mapping[str, int],
        label: str | None = None,
        draw: Draw = "by-row",
    ) -> None:
        self.__queries, self.__counted = queries, counted
        self.listed, self.largest, self.label, self.draw = dict(listed), dict(largest), label, draw

    @property
    def counted(self) -> Counted:
        """What identifies the queries in the opening ledger."""
        return replace(
            self.__counted, ids={risk: frozenset(q.id for q in queries) for risk, queries in self.__queries.items()}
        )

    @property
    def digests(self) -> dict[str, str]:
        """risk -> digest over the sorted query ids, which a seal contains."""
        return {risk: ids(queries) for risk, queries in self.__queries.items()}

    @property
    def order(self) -> pl.DataFrame:
        """risk, unit and query id of every sealed query; ids do not reveal text."""
        rows = [(risk, query.unit, query.id) for risk, queries in self.__queries.items() for query in queries]
        return pl.DataFrame(rows, schema=["risk", "unit", "query"], orient="row").sort("risk", "unit", "query")

    @property
    def units(self) -> dict[str, int]:
        """risk -> number of sampling units."""
        return {risk: len({query.unit for query in queries}) for risk, queries in self.__queries.items()}

    def renamed(self, key: bytes, label: str) -> "Sealed":
        """The same queries under other ids."""
        queries = {risk: _renamed(pool_queries, key) for risk, pool_queries in self.__queries.items()}
        return Sealed(queries, self.__counted, self.listed, self.largest, label, self.draw)

    def open(self, seal: Mapping[str, Any]) -> Mapping[str, tuple[Query, ...]]:
        """The calibration queries, for a seal that names exactly these queries and lists its candidates."""
        if seal.get("calibration") != self.digests or "candidates" not in seal:
            raise InputError("the seal was made for other calibration queries; start a new run folder (--out)")
        return self.__queries


def ids(queries: Iterable[Query]) -> str:
    """Digest over the sorted ids of queries."""
    return hashing.sha256_json(sorted(query.id for query in queries))


def split(
    task: Task,
    share: float,
    sample: Mapping[str, int] | None = None,
    sources: Mapping[str, Source] | None = None,
    later: int = 0,
    draw: Draw = "by-row",
    before: Sequence[EarlierSplit] = (),
) -> tuple[SearchView, Sealed]:
    """Divide every pool's queries by sampling unit; about the fraction `share` of the units goes to the search.

    sample: risk -> number of the other units to seal and measure, the first of the draw; all by default.
    sources: risk -> its queries; by default each pool is a risk.
    later: number of future requests, for each of which about as many sealed units are held back as this run may open.
    before: earlier searches, see `looked_at`.

    Risks of one pool are divided alike, and so are units that two pools share: what the search sees under one risk is
    never in the sample of another.
    """
    searched: dict[str, tuple[Query, ...]] = {}
    sealed: dict[str, tuple[Query, ...]] = {}
    listed: dict[str, int] = {}
    largest: dict[str, int] = {}
    past = task.earlier
    pools = {pool: keyed_queries(task, pool) for pool in task.queries}
    sources_by_risk = sources or {pool: Source(pool) for pool in pools}
    for risk, source in sources_by_risk.items():
        number = request_of(source.pool)
        if number is not None:
            first, second = _removed(past, number, risk)
            queries: Sequence[Query] = (*first, *second)
        elif source.pool not in pools:
            raise InputError(
                f"{risk} is about {source.pool} queries, which this task lacks; add a file {source.pool}.jsonl"
            )
        else:
            queries = [q for q in pools[source.pool] if past is None or q.row.key not in past.seen]
            first, second, *_ = divide(queries, share, later, risk, draw)
            first, second = _moved(queries, first, second, looked_at(task, source.pool, before))
            second = _of_units(second, (sample or {}).get(risk), draw)
        searched[risk], sealed[risk] = _wanted(first, source), _wanted(second, source)
        sizes = Counter(query.unit for query in _wanted(queries, source))
        listed[risk], largest[risk] = len(sizes), max(sizes.values(), default=0)
        if not searched[risk] or not sealed[risk]:
            raise InputError(f"{risk}: too few queries about facts that no adversary holds; give more queries")
    rows = past.rows if past else ()
    view = SearchView(
        task.forget, task.retain, task.refusals, searched, task.format, task.holdout, rows, task.retrained
    )
    older = (opened_as(task), *({EARLIER: ids(part)} for part in (past.sealed if past else ())))
    counted = Counted(_counted(sealed, sources_by_risk), _counted(searched, sources_by_risk), older=older)
    return view, Sealed(sealed, counted, listed, largest, draw=draw)


def looked_at(task: Task, pool: str, before: Sequence[EarlierSplit]) -> frozenset[str]:
    """Units of a pool that earlier searches would have looked at, whether their tasks had them or not.

    By the hash of the unit alone under their split seeds: the rest is as random a part of the pool as any other, and no loss chooses it.
    """
    units = keyed_queries(task, pool) if before else []
    return frozenset(
        query.unit
        for split_before in before
        for query, placed in zip(
            units, keyed_queries(replace(task, split_seed=split_before.split_seed), pool), strict=True
        )
        if placed.place < split_before.share
    )


def draw_parts(
    task: Task, pool: str, share: float, later: int, before: Sequence[EarlierSplit] = ()
) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """What a search may look at of a pool, and all the rest of it."""
    queries = keyed_queries(task, pool)
    first, *rest = divide(queries, share, later, pool)
    return _moved(queries, first, tuple(chain.from_iterable(rest)), looked_at(task, pool, before))


def _moved(
    queries: Sequence[Query], first: tuple[Query, ...], second: tuple[Query, ...], units: frozenset[str]
) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """The two parts once the search has been given these units."""
    searched = {query.unit for query in first} | units
    return (
        tuple(query for query in queries if query.unit in searched) if units else first,
        tuple(query for query in second if query.unit not in units),
    )


def _counted(queries: Mapping[str, Sequence[Query]], sources: Mapping[str, Source]) -> dict[str, frozenset[str]]:
    """pool -> digests that count the queries of all its risks; earlier requests are one pool."""
    digests: dict[str, set[str]] = {}
    for risk, queries_of_risk in queries.items():
        pool = sources[risk].pool
        name = pool if request_of(pool) is None else EARLIER
        digests.setdefault(name, set()).update(query.counted for query in queries_of_risk)
    return {pool: frozenset(names) for pool, names in digests.items()}


def renamed(view: SearchView, sealed: Sealed, task: Task, label: str) -> tuple[SearchView, Sealed]:
    """A divided task whose query ids are hashed once more with a key for the label.

    The original ids are the same in every run on a task, so that two reports would reveal which losses are of the same
    query. label: public; the key is derived from it and from the data, so that it is lost when the data are deleted.
    """
    key = bytes.fromhex(hashing.hmac_sha256(task.key, "renamed", label))
    return replace(
        view, queries={risk: _renamed(pool_queries, key) for risk, pool_queries in view.queries.items()}
    ), sealed.renamed(key, label)


def _renamed(queries: Iterable[Query], key: bytes) -> tuple[Query, ...]:
    named = (
        replace(q, id=hashing.hmac_sha256(key, q.id)[:16], unit=hashing.hmac_sha256(key, q.unit)[:16]) for q in queries
    )
    return tuple(sorted(named, key=lambda q: q.id))


def _removed(past: Earlier | None, number: int, risk: str) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """Searched and sealed queries of one earlier request, or of all."""
    if past is None:
        raise InputError(f"{risk} is about what earlier requests removed; go on after a run: --after RUN")
    if number > len(past.searched):
        raise InputError(f"{risk}: there were {len(past.searched)} earlier requests; leave it out")
    requests = slice(number - 1, number) if number else slice(None)
    first, second = (tuple(q for group in part[requests] for q in group) for part in (past.searched, past.sealed))
    return first, second


def divide(
    queries: Sequence[Query], share: float, later: int, label: str, draw: Draw = "by-row"
) -> list[tuple[Query, ...]]:
    """The search part, the part that this run may open, and one part for each of `later` requests to come.

    A unit's place in the draw alone decides its part, so that sizes vary around their shares. Where a part would be empty,
    as with few units, the units are divided in the order of their places instead.
    """
    places = {query.unit: query.place for query in queries}
    if len(places) < later + 2:
        raise InputError(
            f"{label}: {len(places)} units that no run has looked at are too few; give new queries about it"
        )
    parts = [{unit for unit, place in places.items() if _part(place, share, later) == k} for k in range(later + 2)]
    if draw == "in-order" or not all(parts):
        units = _drawn(places, draw)
        cut = min(max(1, math.floor(share * len(units))), len(units) - 1 - later)
        rest, count = units[cut:], later + 1
        parts = [
            set(units[:cut]),
            *(set(rest[k * len(rest) // count : (k + 1) * len(rest) // count]) for k in range(count)),
        ]
    return [tuple(query for query in queries if query.unit in units_of_part) for units_of_part in parts]


def _part(place: float, share: float, later: int) -> int:
    return 0 if place < share else 1 + min(later, int((place - share) / (1.0 - share) * (later + 1)))


def _drawn(places: Mapping[str, float], draw: Draw) -> list[str]:
    """Units in the order of the draw."""
    return sorted(places) if draw == "in-order" else sorted(places, key=lambda unit: (places[unit], unit))


def _of_units(queries: Sequence[Query], most: int | None, draw: Draw) -> tuple[Query, ...]:
    """The queries of the first `most` units of the draw; all for None."""
    units = set(_drawn({query.unit: query.place for query in queries}, draw)[:most])
    return tuple(query for query in queries if query.unit in units)


def _wanted(queries: Iterable[Query], source: Source) -> tuple[Query, ...]:
    return tuple(sorted((q for q in queries if not (source.unheld and held(q.row))), key=lambda q: q.id))


def opened_as(task: Task) -> dict[str, str]:
    """pool -> digest over all its queries, as older versions counted openings."""
    return {
        pool: hashing.sha256_json(
            sorted(hashing.hmac_sha256(b"froc opening", row.full_question, row.answer, row.group) for row in rows)
        )
        for pool, rows in task.queries.items()
    }


def keyed_queries(task: Task, pool: str) -> list[Query]:
    """A pool's rows with their ids, units and places in the draw."""
    key = task.key
    return [_query(task, key, pool, row) for row in task.queries[pool]]


def _query(task: Task, key: bytes, pool: str, row: Row) -> Query:
    identity = hashing.hmac_sha256(key, pool, row.full_question, row.answer, row.group)[:16]
    by_group = task.units[pool] != "query"
    unit = hashing.hmac_sha256(key, pool, "group", row.group)[:16] if by_group else identity
    # queries that were drawn anew from a known population count as fresh, even if the draws overlap
    drawn = [] if task.questions is None else [str(task.questions)]
    counted = hashing.hmac_sha256(b"froc drawn", content(row.full_question, row.answer), *drawn)
    of_unit = ["group", normal_form(row.group), *drawn] if by_group else ["query", counted]
    place = int(hashing.hmac_sha256(b"froc split", str(task.split_seed), *of_unit)[:13], 16) / 2**52
    return Query(identity, unit, row, place, counted)
