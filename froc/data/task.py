"""Rows, queries and the sealed split. Torch-free.

A *row* is a question with its answer (`froc.data.rows`). A *query* is a row that is measured
and never trained on. Queries are divided once per task into `search` and `calibration`, at random by sampling unit:
a hash of the unit alone, under the task's split seed, says on which side it falls, so that every run seals the same
queries, and a row that is added, left out or mended moves no other one. Ids are keyed by the task's whole content.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from froc import hashing
from froc.data.prompts import Argument, PromptFormat
from froc.data.rows import Row as Row

FORGETTING = "forgetting"
UTILITY = "utility"
RISKS = (FORGETTING, UTILITY)
EARLIER = "earlier"
"""Queries about what earlier requests removed, and the risk that it can be had again; `earlier-2` for the second alone."""
WORDINGS = "wordings"
"""Queries that ask in other words for what is forgotten, where the forget rows themselves are all measured (a census)."""
Unit = Literal["query", "group", "queries-by-group"]
"""What is drawn at random, and what a risk is the mean of: of queries, of the means of groups, of queries that are drawn by
group (see `froc.risk.ratios.tilted`).
"""


@dataclass(frozen=True, slots=True)
class Query:
    """A measured row. `id` and `unit` are keyed digests (16 hex digits): they never show the text.

    place: of its unit in the draw, in [0, 1). counted: what its openings are counted by.
    """

    id: str
    unit: str
    row: Row = field(repr=False)
    place: float = field(default=0.0, repr=False)
    counted: str = field(default="", repr=False)


@dataclass(frozen=True)
class Earlier:
    """What earlier requests removed from the model that is the base now; made by `froc.data.continual`.

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
    `froc.risk.claim.Claim`). earlier: what was removed before, for a third pool of that name; no part of the task's digest.
    audited: whether `split_seed` came from an auditor. questions: the embedded task's seed of queries. retrained: see
    `SearchView`; no part of the digest, for it is a model. template, system, arguments: see `froc.data.prompts.PromptFormat`.
    tokenizer_from_data: whether the base model's tokenizer was made from these data; no part of the digest.
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
    tokenizer_from_data: bool = False

    @property
    def format(self) -> PromptFormat:
        """How its questions are asked."""
        return PromptFormat(self.template, self.system, tuple(sorted(self.arguments.items())))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the task says; safe to publish, for it is over all texts at once."""
        every = [*self.holdout, *(row for rows in self.queries.values() for row in rows)]
        more = [row.more for row in every if row.more]
        beside = {"holdout": [[row.full_question, row.answer, row.group] for row in self.holdout], "more": more}
        content = self._content() | self.format.more
        return hashing.sha256_json(content | beside if more or self.holdout else content)

    @property
    def key(self) -> bytes:
        """Secret key of the query ids: only who holds the data can make it again (AUDIT.md 2.4)."""
        return bytes.fromhex(hashing.hmac_sha256(b"froc query key", json.dumps(self._content(), sort_keys=True)))

    def _content(self) -> dict[str, Any]:
        def rows(rows_of_file: Iterable[Row]) -> list[list[str]]:
            return [[row.full_question, row.answer, row.group] for row in rows_of_file]

        return {
            "forget": rows(self.forget),
            "retain": rows(self.retain),
            "queries": {risk: rows(rows_of_file) for risk, rows_of_file in self.queries.items()},
            "refusals": list(self.refusals),
            "template": self.template,
            "split_seed": self.split_seed,
        }


def request_of(name: str) -> int | None:
    """Which earlier request a pool or a risk is about, 0 for all of them together; None for others."""
    front, dash, number = name.partition("-")
    if front != EARLIER or (dash and not number.isdecimal()):
        return None
    return int(number) if dash else 0
