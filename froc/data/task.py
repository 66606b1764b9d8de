"""A task: rows to forget and to keep, and the queries that measure both. Torch-free.

A *row* is a question with its answer (`froc.data.rows`). A *query* is a row that is measured and never trained on. Queries are
divided once per task into `search` and `calibration`, at random by sampling unit (`froc.data.splits`): a hash of the unit under
the task's split seed decides, so that every run seals the same queries, and adding, removing or editing a row moves no
other. Ids are keyed by the task's whole content.
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
"""Pool of queries about what earlier requests removed, and the risk that it returns; `earlier-2` for the second request alone."""
WORDINGS = "wordings"
"""Pool of queries in other words about what is forgotten, where the forget rows themselves are measured (a census)."""
Unit = Literal["query", "group", "queries-by-group"]
"""Sampling unit, and the mean that a risk is: over queries, over means of groups, or over queries that are drawn by group
(`froc.risk.ratios.tilted`).
"""


@dataclass(frozen=True, slots=True)
class Query:
    """A measured row. `id` and `unit` are keyed digests (16 hex digits): they never show the text.

    place: of its unit in the draw, in [0, 1). counted: digest that counts its openings.
    """

    id: str
    unit: str
    row: Row = field(repr=False)
    place: float = field(default=0.0, repr=False)
    counted: str = field(default="", repr=False)


@dataclass(frozen=True)
class Earlier:
    """What earlier requests removed from the present base model; made by `froc.data.continual`.

    rows: their forget rows. searched, sealed: per request, queries about it, divided; no sealed one was opened by an earlier
    run. seen: question and answer of every row that earlier runs have measured: they helped to choose the base model, so
    they are not measured again.
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
        """SHA-256 over the task's content; safe to publish, as it covers all texts at once."""
        every = [*self.holdout, *(row for rows in self.queries.values() for row in rows)]
        more = [row.more for row in every if row.more]
        beside = {"holdout": [[row.full_question, row.answer, row.group] for row in self.holdout], "more": more}
        content = self._content() | self.format.more
        return hashing.sha256_json(content | beside if more or self.holdout else content)

    @property
    def key(self) -> bytes:
        """Secret key of the query ids, which only holders of the data can compute (AUDIT.md 2.4)."""
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
    """The earlier request that a pool or a risk is about, 0 for all of them; None for other names."""
    front, dash, number = name.partition("-")
    if front != EARLIER or (dash and not number.isdecimal()):
        return None
    return int(number) if dash else 0
