"""Rows, queries and the sealed split. Torch-free.

A *row* is a question with its answer (`froc.rows`). A *query* is a row that is measured
and never trained on. Queries are divided once per task into `search` and `calibration`, at random by sampling unit:
units are ordered by a keyed hash and the first share is for the search. The key is derived from the task's own
content and its split seed, so that every run on the same data seals the same queries.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import polars as pl

from froc import digest
from froc.errors import InputError
from froc.prompts import Argument, PromptFormat
from froc.rows import Row as Row

FORGETTING = "forgetting"
UTILITY = "utility"
RISKS = (FORGETTING, UTILITY)
EARLIER = "earlier"
"""Queries about what earlier requests removed, and the risk that it can be had again; `earlier-2` for the second alone."""
WORDINGS = "wordings"
"""Queries that ask in other words for what is forgotten, where the forget rows themselves are all measured (a census)."""
Unit = Literal["query", "group"]


HELD = 0.25
"""Share of facts that an adversary may hold."""


@dataclass(frozen=True, slots=True)
class Query:
    """A measured row. `id` and `unit` are keyed digests (16 hex digits): they never show the text."""

    id: str
    unit: str
    row: Row = field(repr=False)


@dataclass(frozen=True)
class Earlier:
    """What earlier requests removed from the model that is the base now; made by `froc.earlier`.

    rows: their forget rows. searched, sealed: per request, queries about it, divided; no sealed one was opened by an earlier
    run. seen: question and answer of every row that earlier runs have looked at: it helped to choose the base, so it is
    measured no more.
    """

    rows: tuple[Row, ...] = field(repr=False)
    searched: tuple[tuple[Query, ...], ...]
    sealed: tuple[tuple[Query, ...], ...]
    seen: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Task:
    """What is to be forgotten, what is to be kept, and the queries that measure both.

    queries: pool -> rows; the pools are called `forgetting`, `utility` and, where there is one, `wordings`. holdout: rows like those to forget that the base
    model has never seen. population: risk -> what a claim about it is about, `queries` where left out (see
    `froc.claim.Claim`). earlier: what was removed before, for a third pool of that name; no part of the task's digest.
    audited: whether `split_seed` came from an auditor. questions: the embedded task's seed of queries. retrained: see
    `SearchView`; no part of the digest, for it is a model. template, system, arguments: see `froc.prompts.PromptFormat`.
    """

    name: str
    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    queries: Mapping[str, tuple[Row, ...]]
    units: Mapping[str, Unit]
    refusals: tuple[str, ...] = ()
    holdout: tuple[Row, ...] = ()
    template: str = PromptFormat.template
    split_seed: int = 0
    space: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    population: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    earlier: Earlier | None = None
    audited: bool = False
    questions: int | None = None
    retrained: str | None = None
    system: str = ""
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    @property
    def format(self) -> PromptFormat:
        """How its questions are asked."""
        return PromptFormat(self.template, self.system, tuple(sorted(self.arguments.items())))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the task says; safe to publish, for it is over all texts at once."""
        every = [*self.holdout, *(row for rows in self.queries.values() for row in rows)]
        more = [row.more for row in every if row.more]
        beside = {"holdout": [[row.asked, row.answer, row.group] for row in self.holdout], "more": more}
        content = self._content() | self.format.more
        return digest.of_json(content | beside if more or self.holdout else content)

    @property
    def key(self) -> bytes:
        """Secret key of the query ids: only who holds the data can make it again (AUDIT.md 2.4)."""
        return bytes.fromhex(digest.keyed(b"froc query key", json.dumps(self._content(), sort_keys=True)))

    def _content(self) -> dict[str, Any]:
        def rows(some: Iterable[Row]) -> list[list[str]]:
            return [[row.asked, row.answer, row.group] for row in some]

        return {
            "forget": rows(self.forget),
            "retain": rows(self.retain),
            "queries": {risk: rows(some) for risk, some in self.queries.items()},
            "refusals": list(self.refusals),
            "template": self.template,
            "split_seed": self.split_seed,
        }


@dataclass(frozen=True)
class SearchView:
    """All that a search may see of a task: it has no field for the calibration queries.

    template: how questions are asked. retrained: folder of a model that was made as the base was, without the forget rows; a
    control, where a task brings one.
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
    """Which queries a risk is measured on. pool: whose; unheld: only those about facts that no adversary holds."""

    pool: str
    unheld: bool = False


def held(row: Row) -> bool:
    """Whether an adversary with data may hold the fact that a row is about: one in four, by a hash of group and answer.

    Training rows and queries about one fact fall on the same side, so what such an adversary knows is never measured.
    """
    return int(digest.keyed(b"froc held", row.group, row.answer)[:8], 16) < HELD * 2**32


class Sealed:
    """The calibration queries, out of reach until a seal is shown.

    pool: pool -> digest over all the task's queries (`opened_as`). Openings are counted by it: another share for the search,
    another split, sample or risk is another look at the same queries. listed: risk -> number of all its units. beside:
    digests of each earlier request's queries, which are counted by themselves: they may be opened with any later task.
    label: what their ids were renamed by (`renamed`), None where they are those of the draw.
    """

    def __init__(
        self,
        queries: Mapping[str, tuple[Query, ...]],
        pool: Mapping[str, str],
        listed: Mapping[str, int],
        beside: Sequence[str] = (),
        label: str | None = None,
    ) -> None:
        self.__queries = queries
        self.pool, self.listed, self.beside, self.label = dict(pool), dict(listed), tuple(beside), label

    @property
    def counted(self) -> list[dict[str, str]]:
        """Sets of queries whose openings are counted, each by itself."""
        return [self.pool, *({EARLIER: one} for one in self.beside)]

    @property
    def digests(self) -> dict[str, str]:
        """risk -> digest over the sorted query ids: what a seal binds itself to."""
        return {risk: ids(some) for risk, some in self.__queries.items()}

    @property
    def order(self) -> pl.DataFrame:
        """risk, unit and query id of every sealed query; ids tell nothing of their text."""
        rows = [(risk, query.unit, query.id) for risk, some in self.__queries.items() for query in some]
        return pl.DataFrame(rows, schema=["risk", "unit", "query"], orient="row").sort("risk", "unit", "query")

    @property
    def units(self) -> dict[str, int]:
        """risk -> number of sampling units."""
        return {risk: len({query.unit for query in some}) for risk, some in self.__queries.items()}

    def renamed(self, key: bytes, label: str) -> "Sealed":
        """The same queries under other ids."""
        queries = {risk: _renamed(some, key) for risk, some in self.__queries.items()}
        return Sealed(queries, self.pool, self.listed, self.beside, label)

    def open(self, seal: Mapping[str, Any]) -> Mapping[str, tuple[Query, ...]]:
        """The calibration queries, for a seal that names exactly these queries and lists its candidates."""
        if seal.get("calibration") != self.digests or "candidates" not in seal:
            raise InputError("the seal was made for other calibration queries; start a new run folder (--out)")
        return self.__queries


def ids(queries: Iterable[Query]) -> str:
    """Digest over the sorted ids of queries."""
    return digest.of_json(sorted(query.id for query in queries))


def split(
    task: Task,
    share: float,
    sample: Mapping[str, int] | None = None,
    sources: Mapping[str, Source] | None = None,
    later: int = 0,
) -> tuple[SearchView, Sealed]:
    """Divide every pool's queries by sampling unit: the first `share` of units in keyed-hash order is searched.

    sample: risk -> how many of the other units are sealed and measured, the next ones in that order; all by default.
    sources: risk -> its queries; by default each pool is a risk. Risks of one pool are divided alike: what the search has
    looked at under one risk is never in the sample of another. later: requests to come, for each of which as many of the
    sealed units are held back as this run may open.
    """
    searched: dict[str, tuple[Query, ...]] = {}
    sealed: dict[str, tuple[Query, ...]] = {}
    listed: dict[str, int] = {}
    past = task.earlier
    pools = {pool: keyed_queries(task, pool) for pool in task.queries}
    for risk, source in (sources or {pool: Source(pool) for pool in pools}).items():
        number = request_of(source.pool)
        if number is not None:
            first, second = _removed(past, number, risk)
            every: Sequence[Query] = (*first, *second)
        elif source.pool not in pools:
            raise InputError(
                f"{risk} is about {source.pool} queries, which this task lacks; add a file {source.pool}.jsonl"
            )
        else:
            every = [q for q in pools[source.pool] if past is None or q.row.key not in past.seen]
            first, second, *_ = divide(every, share, later, risk)
            second = _of_units(second, (sample or {}).get(risk))
        searched[risk], sealed[risk] = _wanted(first, source), _wanted(second, source)
        listed[risk] = len({query.unit for query in _wanted(every, source)})
        if not searched[risk] or not sealed[risk]:
            raise InputError(f"{risk}: too few queries about facts that no adversary holds; give more queries")
    rows = past.rows if past else ()
    view = SearchView(
        task.forget, task.retain, task.refusals, searched, task.format, task.holdout, rows, task.retrained
    )
    beside = [ids(some) for some in past.sealed] if past else ()
    return view, Sealed(sealed, opened_as(task), listed, beside)


def renamed(view: SearchView, sealed: Sealed, task: Task, label: str) -> tuple[SearchView, Sealed]:
    """A divided task whose queries have other ids: those of the draw, hashed once more with a key of the label's own.

    Ids of the draw are the same in every run on the same task, so that who holds two reports could tell which losses are of
    the same query. label: public; the key is derived from it and from the data, and is gone when the data are.
    """
    key = bytes.fromhex(digest.keyed(task.key, "renamed", label))
    return replace(view, queries={risk: _renamed(some, key) for risk, some in view.queries.items()}), sealed.renamed(
        key, label
    )


def _renamed(queries: Iterable[Query], key: bytes) -> tuple[Query, ...]:
    named = (Query(digest.keyed(key, q.id)[:16], digest.keyed(key, q.unit)[:16], q.row) for q in queries)
    return tuple(sorted(named, key=lambda q: q.id))


def request_of(name: str) -> int | None:
    """Which earlier request a pool or a risk is about, 0 for all of them together; None for others."""
    front, dash, number = name.partition("-")
    if front != EARLIER or (dash and not number.isdecimal()):
        return None
    return int(number) if dash else 0


def _removed(past: Earlier | None, number: int, risk: str) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """Searched and sealed queries of one earlier request, or of all."""
    if past is None:
        raise InputError(f"{risk} is about what earlier requests removed; go on after a run: --after RUN")
    if number > len(past.searched):
        raise InputError(f"{risk}: there were {len(past.searched)} earlier requests; leave it out")
    some = slice(number - 1, number) if number else slice(None)
    first, second = (tuple(q for one in part[some] for q in one) for part in (past.searched, past.sealed))
    return first, second


def divide(queries: Sequence[Query], share: float, later: int, what: str) -> list[tuple[Query, ...]]:
    """The part that the search looks at, the part that this run may open, and one for each of `later` requests to come."""
    units = sorted({query.unit for query in queries})
    if len(units) < later + 2:
        raise InputError(f"{what}: {len(units)} units that no run has looked at are too few; give new queries about it")
    cut = min(max(1, math.floor(share * len(units))), len(units) - 1 - later)
    rest, count = units[cut:], later + 1
    parts = [units[:cut], *(rest[k * len(rest) // count : (k + 1) * len(rest) // count] for k in range(count))]
    return [tuple(query for query in queries if query.unit in some) for some in map(set, parts)]


def _of_units(queries: Sequence[Query], most: int | None) -> tuple[Query, ...]:
    """Those of the first `most` units; all where nothing is said."""
    units = set(sorted({query.unit for query in queries})[:most])
    return tuple(query for query in queries if query.unit in units)


def _wanted(queries: Iterable[Query], source: Source) -> tuple[Query, ...]:
    return tuple(sorted((q for q in queries if not (source.unheld and held(q.row))), key=lambda q: q.id))


def opened_as(task: Task) -> dict[str, str]:
    """pool -> digest over all its queries, by which openings are counted: another split, or other rows to train on, are
    another look at the same queries."""
    return {
        pool: digest.of_json(sorted(digest.keyed(b"froc opening", row.asked, row.answer, row.group) for row in rows))
        for pool, rows in task.queries.items()
    }


def keyed_queries(task: Task, pool: str) -> list[Query]:
    """A pool's rows with their ids and units."""
    key = task.key
    return [_query(task, key, pool, row) for row in task.queries[pool]]


def _query(task: Task, key: bytes, pool: str, row: Row) -> Query:
    identity = digest.keyed(key, pool, row.asked, row.answer, row.group)[:16]
    by_group = task.units[pool] == "group"
    unit = digest.keyed(key, pool, "group", row.group)[:16] if by_group else identity
    return Query(identity, unit, row)
