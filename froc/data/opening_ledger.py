"""How often queries have been looked at, query by query. Looking again spends confidence again. Torch-free.

Counted in the user's state folder (FROC_STATE), for every row apart: by a keyed digest of its normal form (`froc.data.normal_form`)
and its pool. So the same queries in another file, order, spelling or group, with a row more or less, or asked of another base
model, are further looks. The key is a secret of this machine, made at first use: who reads the ledger without it cannot try
texts against it. Each look is a file of its own, numbered without gaps, that appears whole or not at all; a ledger that is
damaged in any way grants nothing.

The same seal twice is one opening: it asks nothing new. Queries of earlier requests are a pool of their own: the same part of
them may be opened again beside another task. That a part was opened by none of the runs that led to the base model is no
matter of counting, but of which part is taken (`froc.data.continual`).

Older versions counted whole pools, in a file each; those openings count as well, where a task's queries are still the same.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from froc import hashing
from froc.atomic import write_text
from froc.data.ledger_files import (
    DIGITS,
    Counted,
    Rows,
    _Count,
    _fingerprint,
    _Ledger,
    _locked,
    _Look,
    _looks,
    _parsed,
    _place,
    _read,
    _Table,
)
from froc.data.normal_form import normal_form
from froc.errors import InputError

MAX_COUNTED_ROWS = 20_000
"""Rows of a table that are counted: of more, those with the smallest digests, which are the same in every table."""


@dataclass(frozen=True)
class Opening:
    """number: which opening this is, from 1. planned: how many were announced before the first. again: how many of the `of`
    queries had been looked at before."""

    number: int
    planned: int
    again: int = 0
    of: int = 0

    @property
    def overlap(self) -> str:
        """The overlap in a sentence; empty where everything is fresh."""
        if not self.again:
            return ""
        return f"{self.again} of {self.of} of these queries were opened before: opening {self.number}, {self.planned} planned"


@dataclass(frozen=True)
class Certified:
    """How often rows were certified by `froc certify`, this time included. times: calls; options: different ways, in what was
    claimed or in the losses; number: which of these the present one is, in the order of their first use: the same again asks
    nothing new. sealed: whether the rows are calibration queries of a search that this machine ran. failure: why nothing could
    be counted; empty where it was."""

    times: int = 1
    options: int = 1
    number: int = 1
    sealed: bool = False
    failure: str = ""

    @property
    def sentences(self) -> list[str]:
        """What a reader must be told; nothing for a first look."""
        lines = []
        if self.times > 1:
            lines.append(
                f"this table was certified {self.times} times (with {self.options} different sets of options or losses)"
            )
        if self.options > 1:
            lines.append(
                "whoever chooses between certificates of the same rows lets their losses choose: only what was fixed before the "
                "first look keeps its confidence"
            )
        if self.sealed:
            lines.append(
                "these rows are the calibration queries of a search on this machine, which has opened them: this is a further look"
            )
        return lines + ([self.failure] if self.failure else [])


def check(counted: Counted, plan: str, planned: int, reopen: bool) -> Opening:
    """The opening that a search under `plan` would be, before it is made.

    plan: digest of what the search was told. The same search again will end in the same seal, which asks nothing new.
    Raises InputError where the opening was neither planned nor asked for.
    """
    with _locked():
        ledger = _read(counted)
        return _known(ledger, counted, lambda by, _: by == plan) or _next(ledger, counted, planned, reopen)


def record(counted: Counted, plan: str, seal: str, planned: int, reopen: bool) -> Opening:
    """Write the opening down before a calibration loss is computed; the same seal again is no new opening.

    Two searches that open at the same moment are two openings. The same plan may have led to another seal (another machine):
    then it is a new opening after all. Raises InputError as `check` does.
    """
    with _locked():
        ledger = _read(counted)
        known = _known(ledger, counted, lambda _, sealed_as: sealed_as == seal)
        if known is not None:
            return known
        opening = _next(ledger, counted, planned, reopen)
        look = _Look(
            key=_fingerprint(ledger.key), plan=plan, seal=seal, number=opening.number, planned=opening.planned,
            queries={pool: sorted(names) for pool, names in _keyed(ledger.key, counted.opened, counted.searched).items()},
            ids=sorted(_names(ledger.key, counted.ids)),
        )  # fmt: skip
        write_text(_looks() / f"{len(ledger.looks) + 1:06d}.json", look.model_dump_json() + "\n")
        count = _Count(key=_fingerprint(ledger.key), looks=len(ledger.looks) + 1)
        write_text(_place() / "count.json", count.model_dump_json() + "\n")
        return opening


def by_others(counted: Counted, plan: str) -> bool:
    """Whether a search under another plan has looked at any of these queries, as far as this state folder knows."""
    with _locked():
        ledger = _read(counted)
    mine = _keyed(ledger.key, counted.opened)
    known = any(by != plan for by, _, _ in ledger.before)
    return known or any(look.plan != plan and _shared(look, mine) for look in ledger.looks)


def certified(rows: Rows, options: str) -> Certified:
    """Count that `froc certify` certifies these rows now: risk -> names of its queries, whatever the configuration.

    options: digest of what was asked of them. Names are compared in their normal form; those that are mere numbers say nothing
    of their rows, so that as many of them must be there as well. Where the state folder cannot be
    written or is damaged, the answer says so, and nothing fails: a table's certificate is the caller's own affair.
    """
    try:
        with _locked():
            return _certified(rows, options)
    except (OSError, InputError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Certified(failure=f"how often this table was certified could not be counted ({why})")


def _certified(rows: Rows, options: str) -> Certified:
    ledger = _read(Counted({}))
    mine = set(
        sorted(_names(ledger.key, {risk: _distinct_names(names) for risk, names in rows.items()}))[:MAX_COUNTED_ROWS]
    )
    folder = _place() / "certified"
    files = {path: _parsed(path, _Table, ledger.key) for path in sorted(folder.glob("*.json"))}
    own = hashing.sha256_json([sorted(mine), options])[:32]
    before = files.get(folder / f"{own}.json")
    kept = _Table(
        key=_fingerprint(ledger.key), options=options, place=before.place if before else len(files) + 1,
        times=1 + (before.times if before else 0), queries=sorted(mine),
    )  # fmt: skip
    write_text(folder / f"{own}.json", kept.model_dump_json() + "\n")
    alike = [table for path, table in files.items() if path.stem != own and not mine.isdisjoint(table.queries)] + [kept]
    first: dict[str, int] = {}
    for table in alike:
        first[table.options] = min(first.get(table.options, table.place), table.place)
    # the largest count over the rows that are certified now
    counts: Counter[str] = Counter()
    for table in alike:
        counts.update(dict.fromkeys(mine.intersection(table.queries), table.times))
    return Certified(
        times=max(counts.values(), default=1),
        options=len(first),
        number=sorted(first, key=first.__getitem__).index(options) + 1,
        sealed=any(not mine.isdisjoint(look.ids) for look in ledger.looks),
    )


def _known(ledger: _Ledger, counted: Counted, same: Callable[[str, str], bool]) -> Opening | None:
    """The opening of these very queries that was made under the same plan or seal; None where there is none."""
    mine = _keyed(ledger.key, counted.opened)
    of = sum(map(len, mine.values()))
    for number, (plan, seal, planned) in enumerate(ledger.before, start=1):
        if same(plan, seal):
            return Opening(number, planned)
    for look in ledger.looks:
        if same(look.plan, look.seal) and len(_shared(look, mine)) == of:
            return Opening(look.number, look.planned)
    return None


def _next(ledger: _Ledger, counted: Counted, planned: int, reopen: bool) -> Opening:
    """A further opening: one more than the queries at hand have had, at the plan of the looks that they had.

    Where these had different plans the smallest counts: the level of each look was at most what it says.
    """
    mine = _keyed(ledger.key, counted.opened)
    shared = [(look, _shared(look, mine)) for look in ledger.looks]
    counts = Counter(name for _, names in shared for name in names)
    of = sum(map(len, mine.values()))
    number = len(ledger.before) + max(counts.values(), default=0) + 1
    plans = [look.planned for look, names in shared if names] + [planned_then for _, _, planned_then in ledger.before]
    opening = Opening(number, min(plans, default=planned), of if ledger.before else len(counts), of)
    if number > 1 and number > opening.planned and not reopen:
        raise InputError(
            f"{opening.again} of {of} of these queries were opened before ({number - 1} time(s), {opening.planned} planned), in "
            "whatever file, spelling or order, and whichever model was asked: an earlier result may have led to this search. "
            "Fresh queries, or the same run folder, cost nothing; several models or searches are planned beforehand with "
            f"--openings K; --reopen goes on and says 'opening {number}' in every output"
        )
    return opening


def _shared(look: _Look, mine: Mapping[str, set[str]]) -> set[str]:
    return {f"{pool} {name}" for pool, names in mine.items() for name in names.intersection(look.queries.get(pool, ()))}


def _keyed(key: bytes, *parts: Rows) -> dict[str, set[str]]:
    digests: dict[str, set[str]] = {}
    for part in parts:
        for pool, rows in part.items():
            digests.setdefault(pool, set()).update(hashing.hmac_sha256(key, "row", pool, row)[:DIGITS] for row in rows)
    return digests


def _names(key: bytes, names: Rows) -> set[str]:
    return {
        hashing.hmac_sha256(key, "id", risk, normal_form(name))[:DIGITS]
        for risk, texts in names.items()
        for name in texts
    }


def _distinct_names(names: frozenset[str]) -> frozenset[str]:
    """Names of a risk's queries; mere numbers with how many they are."""
    return frozenset(f"{name} of {len(names)}" for name in names) if all(map(str.isdecimal, names)) else names
