"""Queries with which a finished run is continued: read, checked to be fresh, and named by keyed digests. Torch-free.

Fresh means: drawn from the population of the calibration queries, and nothing that the run trained on, searched with, sealed or
measured before, whatever its case, blanks or punctuation.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from froc import hashing
from froc.data.normal_form import content, normal_form
from froc.data.rows import Row, read_pools, read_rows, refuse_overlaps, stripped
from froc.data.splits import Source, held
from froc.data.task import Query, Task, request_of
from froc.errors import InputError

Rows = Mapping[str, tuple[Row, ...]]
"""pool -> its rows."""
Seen = tuple["Names", frozenset[str], frozenset[str]]
"""How a stage named its queries, the ids of those that it measured, and of their units."""


@dataclass(frozen=True)
class Names:
    """How the queries of one stage are named. task: whose key only holders of the data can compute. seed: of the stage; it decides
    the names, and with them the order in which bounds read the units."""

    task: Task
    seed: str

    def query(self, pool: str, row: Row) -> Query:
        """The row as a query of this stage."""
        identity = self._name(pool, content(row.full_question, row.answer))
        by_group = self.task.units[pool] != "query"
        drawn = [] if self.task.questions is None else [self.seed]
        counted = hashing.hmac_sha256(b"froc drawn", content(row.full_question, row.answer), *drawn)
        return Query(
            identity, self._name(pool, "group", normal_form(row.group)) if by_group else identity, row, counted=counted
        )

    def _name(self, *parts: str) -> str:
        key = bytes.fromhex(hashing.hmac_sha256(self.task.key, "stage", self.seed))
        return hashing.hmac_sha256(key, *parts)[:16]


def read(words: Sequence[str], pools: Iterable[str]) -> dict[str, tuple[Row, ...]]:
    """Rows of `POOL=FILE`, or of files whose rows say their `pool`. pools: of the task. InputError names file, row and mend."""
    known, files = list(pools), dict[str, tuple[Row, ...]]()
    for word in words:
        pool, equals, path = word.partition("=")
        of_file = {pool: read_rows(Path(path))} if equals and pool in known else read_pools(Path(word))
        for name, rows in of_file.items():
            if name not in known:
                raise InputError(f"{word}: no queries are called {name!r}; there are: {', '.join(known)}")
            files[name] = files.get(name, ()) + stripped(rows)[0]
    return files


def digest(task: Task, rows: Rows) -> str:
    """Keyed digest (64 hexadecimal digits) of all rows, in whatever order they stand; nobody without the data can try texts against it."""
    rows_by_pool = {
        pool: sorted([row.full_question, row.answer, row.group] for row in of_pool) for pool, of_pool in rows.items()
    }
    return hashing.hmac_sha256(task.key, "stage rows", hashing.sha256_json(rows_by_pool))


def refuse_seen(task: Task, rows: Rows, measured: Sequence[Seen]) -> None:
    """InputError where a row is no fresh query of the task, in whatever pool it stood before. measured: the earlier stages."""
    refuse_overlaps({f"{pool} queries": of_pool for pool, of_pool in rows.items()})
    known = {content(row.full_question, row.answer): name for name, of_file in _used(task) for row in of_file}
    for pool, of_pool in rows.items():
        groups = {normal_form(row.group) for row in task.queries[pool]} if task.units[pool] != "query" else set[str]()
        for number, row in enumerate(of_pool, start=1):
            place = row.at(f"{pool} queries", number)
            used = known.get(content(row.full_question, row.answer))
            if used is not None:
                raise InputError(
                    f"{place} is one of the {used}, but for case, blanks or punctuation; only fresh queries go on"
                )
            if any(names.query(split, row).id in ids for names, ids, _ in measured for split in task.units):
                raise InputError(f"{place} was measured in an earlier stage; only fresh queries go on")
            if task.units[pool] != "query" and not row.group:
                raise InputError(f"{place} names no group, which is the sampling unit of {pool}; give it one")
            # a stage names groups by a key of its own
            known_group = any(names.query(pool, row).unit in units for names, _, units in measured)
            if task.units[pool] != "query" and (known_group or normal_form(row.group) in groups):
                raise InputError(
                    f"{place} is of a group that the run or an earlier stage has queries about; the sampling unit of {pool} is the group, so that only "
                    "queries about other groups are fresh"
                )


def _used(task: Task) -> list[tuple[str, tuple[Row, ...]]]:
    files = [("forget rows", task.forget), ("retain rows", task.retain), ("rows of the holdout", task.holdout)]
    files += [(f"{pool} queries that the run had", rows) for pool, rows in task.queries.items()]
    return [*files, ("rows of earlier requests", task.earlier.rows)] if task.earlier else files


def queries(names: Names, rows: Rows, sources: Mapping[str, Source]) -> dict[str, tuple[Query, ...]]:
    """risk -> its fresh queries, in the order of their ids; risks without any are left out."""
    by_risk = {}
    for risk, source in sources.items():
        if request_of(source.pool) is None:
            wanted = [row for row in rows.get(source.pool, ()) if not (source.unheld and held(row))]
            by_risk[risk] = tuple(sorted((names.query(source.pool, row) for row in wanted), key=lambda query: query.id))
    return {risk: of_risk for risk, of_risk in by_risk.items() if of_risk}


def refuse_large_groups(by_risk: Mapping[str, Sequence[Query]], largest: Mapping[str, int]) -> None:
    """InputError where a group has more queries than the plan says that any has."""
    for risk, most in largest.items():
        counts = Counter(query.unit for query in by_risk.get(risk, ()))
        if max(counts.values(), default=0) > most:
            raise InputError(
                f"{risk}: a group has {max(counts.values())} fresh queries, and the plan says that none has more than {most}; leave "
                "some out at random"
            )
