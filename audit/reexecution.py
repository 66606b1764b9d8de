"""Losses measured again: which rows a seed draws, what came of them, and what follows.

A report's losses are its signer's word. Somebody else draws rows of losses.csv with a seed that was chosen after the
report was signed, measures them again and signs the counts, as a second statement about the same signed bytes. If a
share f of all rows were false, k drawn rows would all agree with probability (1 - f)^k at most: 299 without a
difference say with 95 % confidence that fewer than 1 % differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from pydantic import Field

from audit import documents, signing
from audit.chronology import CLOCK_SKEW
from audit.claims import Facts
from audit.documents import Harness, Role
from audit.records import HEADER, Hex, Stamp, Strict, moment
from audit.signing import exact
from froc import digest
from froc.bounds.binomial import ceiling
from froc.errors import InputError, VerificationError
from froc.rounding import up

NAME = "reexecution.dsse.json"
PREDICATE = "urn:froc:unlearning-reexecution:1"
SUBJECT = "report"
"""What the statement is about: the bytes that the report's signatures cover."""
CONFIDENCE = 0.95
MOST = 100_000
REPRODUCED, SELF_ATTESTED = "reproduced", "self_attested"
SHARE = 0.05
"""Share of all losses that may differ, by the bound of the statement, for a report to count as reproduced."""
HOW = {"trained-again": "drawn configurations trained again", "model-measured": "the chosen model measured"}


class Outcome(Strict):
    """The predicate. rows: drawn of `of`, by `seed`; lines: where they stand in losses.csv.

    differed: rows whose whole thousandths were others; largest: by how many at most. bound: share of all rows that
    may differ, at `confidence`.
    """

    schema_: Literal["1"] = Field(alias="schema")
    signed: str = Stamp
    role: Role
    keyid: str = Hex
    how: Literal["trained-again", "model-measured"]
    seed: str = Field(pattern=r"^-?[0-9]{1,40}$")
    rows: int = Field(ge=1, le=MOST)
    of: int = Field(ge=1)
    lines: list[int]
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    confidence: str
    bound: str
    harness: Harness
    environment: dict[str, str]


@dataclass(frozen=True)
class Reexecution:
    """A re-execution that verifies.

    independent: whether no signer whom the report names did it. share: of all losses, the most that may differ for the
    report to count as reproduced.
    """

    outcome: Outcome
    signers: tuple[str, ...]
    independent: bool
    share: float = SHARE

    @property
    def assurance(self) -> str:
        """The level that the report has with it: reproduced, or still self_attested."""
        return SELF_ATTESTED if self.lacks else REPRODUCED

    @property
    def lacks(self) -> str:
        """Why the report does not count as reproduced, in fixed words; empty where it does."""
        if self.outcome.differed:
            return "losses differed"
        if not self.independent:
            return "a signer of the report measured them"
        if float(self.outcome.bound) > self.share:
            return f"more than {self.share:.2%} of all losses may differ; draw more rows"
        return ""

    @property
    def sentence(self) -> str:
        """What was found, in fixed words."""
        one = self.outcome
        share = f"at most {float(one.bound):.2%} of them differ"
        if one.rows < one.of:
            share += f" with {CONFIDENCE:.0%} confidence"
        return (
            f"{HOW[one.how]}: {one.rows} of {one.of} losses drawn by seed {one.seed}, {one.differed} differed; {share}"
            + ("" if self.independent else "; done by a signer of the report itself")
        )


def draw(losses: bytes, seed: int, rows: int, config: str | None = None) -> list[int]:
    """Line numbers (the first row is line 2) of losses.csv that a seed draws, sorted; all where there are fewer.

    config: draw from its rows alone. Lines are ordered by an HMAC of what they are about, their losses left out.
    """
    key = str(seed).encode()
    found = []
    for number, line in enumerate(losses.decode("ascii").split("\n")[1:-1], start=2):
        cells = line.split(",")
        if config is None or cells[0] == config:
            found.append((digest.keyed(key, *cells[:-1]), number))
    return sorted(number for _, number in sorted(found)[:rows])


def pool(losses: bytes, config: str | None) -> int:
    """How many rows there are to draw from."""
    rows = losses.decode("ascii").split("\n")[1:-1]
    return sum(config is None or row.startswith(f"{config},") for row in rows)


def table(losses: bytes, lines: Sequence[int]) -> pl.DataFrame:
    """The drawn rows: config, split, risk, query and the loss that was signed."""
    text = losses.decode("ascii").split("\n")
    names = HEADER.split(",")
    rows = [text[line - 1].split(",") for line in lines]
    frame = pl.DataFrame({name: [row[i] for row in rows] for i, name in enumerate(names)}, schema=names)
    return frame.select("config", "split", "risk", "query", pl.col("loss").cast(pl.Int64).alias("signed"))


def compare(drawn: pl.DataFrame, measured: pl.DataFrame) -> tuple[int, int]:
    """How many drawn rows differ, and by how many thousandths at most; one that could not be measured again differs by 1000."""
    both = drawn.join(measured, on=["config", "split", "risk", "query"], how="left")
    apart = (pl.col("signed") - pl.col("loss").cast(pl.Int64)).abs().fill_null(1000)
    found = both.select(apart.alias("apart"))["apart"].to_numpy()
    return int((found > 0).sum()), int(found.max(initial=0))


def bound(differed: int, rows: int, of: int) -> str:
    """Largest share of all rows that may differ: exact binomial (Clopper and Pearson), rounded up; exact where all were drawn."""
    if rows == of:
        return str(exact(up(differed / of, exact=True)))
    return str(exact(up(float(ceiling(np.array([differed]), rows, 1 - CONFIDENCE)[0]))))


def document(
    losses: bytes, seed: int, lines: Sequence[int], config: str | None, found: tuple[int, int], **said: Any
) -> dict[str, Any]:
    """The predicate. found: see `compare`. said: what only its signer can say: signed, role, keyid, harness, environment."""
    of = pool(losses, config)
    return {
        "schema": "1", "how": "trained-again" if config is None else "model-measured", "seed": str(seed),
        "rows": len(lines), "of": of, "lines": list(lines), "differed": found[0], "largest": found[1],
        "confidence": exact(CONFIDENCE), "bound": bound(found[0], len(lines), of), **said,
    }  # fmt: skip


def check(
    subject: Mapping[str, str], predicate: Mapping[str, Any], signers: Sequence[str], facts: Facts, losses: bytes,
    report: Mapping[str, Any], payload: str, now: datetime, share: float = SHARE,
) -> Reexecution:  # fmt: skip
    """A verified statement against the report and its losses. Raises VerificationError where it is about others.

    now: aware time. share: see `Reexecution`.
    """
    if dict(subject) != {SUBJECT: payload}:
        raise VerificationError("reexecution-other-report", "the re-execution is about another report")
    said: Outcome = documents.parse(Outcome, predicate, "reexecution-shape")
    if said.keyid not in signers:
        raise VerificationError(
            "reexecution-signer", "the re-execution names a signer whose trusted key did not sign it"
        )
    if said.signed < report["issued"]:
        raise VerificationError("reexecution-before-report", "the re-execution is older than the report")
    if moment(said.signed) > now + CLOCK_SKEW:
        raise VerificationError("reexecution-in-future", f"the re-execution says it was signed at {said.signed}")
    config = None if said.how == "trained-again" else report["config"]
    if config is not None and not facts.files:
        raise VerificationError("reexecution-other-report", "a model was measured again, and the report covers none")
    if said.lines != draw(losses, int(said.seed), said.rows, config):
        raise VerificationError("reexecution-draw", "the rows are not those that the seed draws")
    if said.differed > said.rows or (said.differed > 0) != (said.largest > 0):
        raise VerificationError("reexecution-counts", "the re-execution counts more than it drew")
    again = document(losses, int(said.seed), said.lines, config, (said.differed, said.largest))
    if any(predicate[name] != value for name, value in again.items()):
        raise VerificationError("reexecution-bound", "the bound is not the one that follows from the counts")
    named = {one["keyid"] for one in report["signers"]}
    return Reexecution(said, tuple(signers), not named & {said.keyid}, share)


def refuse_rows(rows: int) -> None:
    """InputError for a number of rows that cannot be drawn."""
    if not 1 <= rows <= MOST:
        raise InputError(f"--rows {rows} is outside 1 .. {MOST}; 299 show that at most 1 % differ")


def refuse_role(role: str) -> None:
    """InputError for a role that there is not."""
    if role not in get_args(Role):
        raise InputError(f"no role is called {role!r}; there are: {', '.join(get_args(Role))}")


def sign(payload: str, predicate: Mapping[str, Any], signer: signing.PrivateKey) -> bytes:
    """reexecution.dsse.json: a statement about the signed bytes of a report.

    payload: their SHA-256. predicate: see `document`.
    """
    return signing.sign(signing.statement({SUBJECT: payload}, PREDICATE, predicate), [signer])
