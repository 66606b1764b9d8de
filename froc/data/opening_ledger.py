"""How often calibration queries have been opened, counted per query: each opening spends confidence. Torch-free.

The ledger is in the user's state folder (FROC_STATE). Rows are identified by their pool and a keyed digest of their normal form
(`froc.data.normal_form`), so that the same queries in another file, order, spelling or group, with some rows added or removed, or
used with another base model, count again. The key is a secret of this machine, created at first use: without it, texts cannot be
tested against the ledger. Each opening is one file, numbered without gaps and written atomically. A damaged ledger permits
no opening.

The same seal twice is one opening. Queries of earlier requests are a pool of their own, whose parts may be opened again with
another task; that no earlier run has opened a part is ensured by the choice of the part (`froc.data.continual`).

Older versions counted whole pools, in one file each; these openings count too, where a task's queries are unchanged.
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
"""Rows of a table that are counted at most: those with the smallest digests, which are the same in every table."""


@dataclass(frozen=True)
class Opening:
    """number: of this opening, from 1. planned: openings that were planned before the first. again: how many of the `of` queries
    had been opened or searched before."""

    number: int
    planned: int
    again: int = 0
    of: int = 0

    @property
    def overlap(self) -> str:
        """The overlap with earlier openings in a sentence; empty where there is none."""
        if not self.again:
            return ""
        return f"{self.again} of {self.of} of these queries were opened before: opening {self.number}, {self.planned} planned"


@dataclass(frozen=True)
class Certified:
    """How often rows were certified by `froc certify`, this time included. times: calls; options: distinct combinations of claim
    and losses; number: of the present combination, in the order of first use. sealed: whether the rows are calibration queries of
    a search on this machine. failure: why counting failed; empty where it did not."""

    times: int = 1
    options: int = 1
    number: int = 1
    sealed: bool = False
    failure: str = ""

    @property
    def sentences(self) -> list[str]:
        """Warnings for readers; none for a first certification."""
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
    """The opening that a search under `plan` would make; nothing is recorded.

    plan: digest of the search's settings. Repeating the same search ends in the same seal, which is the same opening.
    Raises InputError where the opening is neither planned nor requested by `reopen`.
    """
    with _locked():
        ledger = _read(counted)
        return _known(ledger, counted, lambda by, _: by == plan) or _next(ledger, counted, planned, reopen)


def record(counted: Counted, plan: str, seal: str, planned: int, reopen: bool) -> Opening:
    """Record the opening, before a calibration loss is computed; the same seal again is no new opening.

    The same plan with another seal (from another machine) is a new opening. Raises InputError as `check` does.
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
    """Whether a search under another plan has measured any of these queries, as far as this ledger knows."""
    with _locked():
        ledger = _read(counted)
    mine = _keyed(ledger.key, counted.opened)
    known = any(by != plan for by, _, _ in ledger.before)
    return known or any(look.plan != plan and _shared(look, mine) for look in ledger.looks)


def certified(rows: Rows, options: str) -> Certified:
    """Count that `froc certify` certifies these rows now: risk -> names of its queries, whatever the configuration.

    options: digest of claim, design and losses. Names are compared in their normal form; numbers do not identify rows, so their
    count must be equal too. Where the ledger cannot be written or is damaged, the result says so and no error is raised.
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
    # the largest count over the present rows
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
    """The recorded opening of exactly these queries for which `same(plan, seal)`; None where there is none."""
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
    """The next opening: its number is one more than the most often opened query has had.

    planned: at least 1. The opening has the smallest number that the earlier openings had planned, as each spent at most its share
    of the level.
    """
    mine = _keyed(ledger.key, counted.opened)
    shared = [(look, _shared(look, mine)) for look in ledger.looks]
    counts = Counter(name for _, names in shared for name in names)
    of = sum(map(len, mine.values()))
    number = len(ledger.before) + max(counts.values(), default=0) + 1
    plans = [look.planned for look, names in shared if names] + [planned_then for _, _, planned_then in ledger.before]
    opening = Opening(number, min(plans, default=planned), of if ledger.before else len(counts), of)
    if number > opening.planned and not reopen:
        raise InputError(
            f"{opening.again} of {of} of these queries were opened before ({number - 1} time(s), {opening.planned} planned), in "
            "whatever file, spelling or order, and whichever model was asked: an earlier result may have led to this search. "
            "Fresh queries, or the same run folder, cost no opening (trying on fresh ones until something passes does: --series); several models or searches are planned beforehand with "
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
    """Names of a risk's queries; where all are numbers, with their count."""
    return frozenset(f"{name} of {len(names)}" for name in names) if all(map(str.isdecimal, names)) else names
