"""Losses measured again: which rows a seed draws, how they compare, and what follows.

A report's losses are its signer's claim. Another party draws rows of losses.csv with a seed chosen after the report was
signed, measures them again and signs the counts, as a second statement about the same signed bytes. If a share f of all
rows were false, k drawn rows would all agree with probability at most (1 - f)^k: 299 rows without a difference show
with 95 % confidence that fewer than 1 % differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from pydantic import Field

from froc import hashing
from froc.audit import documents, keys
from froc.audit.bundle_files import HEADER, Hex, Name, Stamp, Strict, moment
from froc.audit.canonical_json import exact
from froc.audit.chronology import CLOCK_SKEW
from froc.audit.documents import Environment, Harness, Role
from froc.audit.report import Facts
from froc.bounds.binomial import upper_from_count
from froc.errors import InputError, VerificationError
from froc.risk.rounding import up

NAME = "reexecution.dsse.json"
PREDICATE = "urn:froc:unlearning-reexecution:1"
SUBJECT = "report"
"""Subject of the statement: the bytes that the report's signatures cover."""
CONFIDENCE = 0.95
MOST = 100_000
REPRODUCED, SELF_ATTESTED = "reproduced", "self_attested"
SHARE = 0.05
"""Largest share of all losses that may differ, by the statement's bound, for a report to count as reproduced."""
HOW = {"trained-again": "drawn configurations trained again", "model-measured": "the chosen model measured"}


class SignedModel(Strict):
    """What measuring again shows about the model that the report covers, beyond the losses.

    how: `same-weights`: `config` trained again has the sealed digest, `digest`. `measured`: training gave other bits,
        and the signed model with weights `digest` was measured on its own rows, drawn by the seed. `not-compared`:
        neither.

    The other fields are as in `Outcome`, for those rows; 0, and no bound, where none were drawn.
    """

    how: Literal["same-weights", "measured", "not-compared"]
    config: str = Name
    digest: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0, le=MOST)
    of: int = Field(ge=0)
    lines: list[int]
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    bound: str | None

    @property
    def holds(self) -> bool:
        """Whether the signed model was shown to have the signed weights or losses."""
        return self.how == "same-weights" or (self.how == "measured" and self.differed == 0)

    @property
    def words(self) -> str:
        """The result in fixed words."""
        if self.how == "same-weights":
            return f"{self.config} trained again has the sealed weights, to the bit"
        if self.how == "not-compared":
            return "the signed model was not compared with what was measured: give --model DIR to froc audit reexecute"
        return (
            f"the signed model measured itself, since training again came to other bits: {self.rows} of {self.of} losses of "
            f"{self.config} drawn, {self.differed} differed"
        )


class Outcome(Strict):
    """The predicate of the statement.

    rows, of: number of rows drawn by `seed`, and of all rows.
    lines: their line numbers in losses.csv.
    differed: number of rows whose whole thousandths differ.
    largest: largest difference, in thousandths.
    bound: share of all rows that may differ, at `confidence`.
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
    environment: Environment
    # older statements do not cover the model
    model: SignedModel | None = None


@dataclass(frozen=True)
class Reexecution:
    """A re-execution that verifies.

    independent: whether its signers did not sign the report or its plan, and are not named in it.
    share: largest share of all losses that may differ for the report to count as reproduced.
    covers: whether the report covers a model.
    """

    outcome: Outcome
    signers: tuple[str, ...]
    independent: bool
    share: float = SHARE
    covers: bool = False

    @property
    def assurance(self) -> str:
        """The report's level with it: reproduced, or still self_attested."""
        return SELF_ATTESTED if self.lacks else REPRODUCED

    @property
    def lacks(self) -> str:
        """Why the report does not count as reproduced, in fixed words; empty if it does."""
        if self.differed:
            return "losses differed"
        if not self.independent:
            return "a signer of the report measured them"
        if not self.of_model:
            return "whether the signed model has these losses was not looked at"
        if max(map(float, self.bounds)) > self.share:
            return f"more than {self.share:.2%} of all losses may differ; draw more rows"
        return ""

    @property
    def bounds(self) -> list[str]:
        """Shares of losses that may differ: of all, and of the signed model's where it was measured itself."""
        of_model = self.outcome.model.bound if self.outcome.model else None
        return [self.outcome.bound, *([of_model] if of_model is not None else [])]

    @property
    def differed(self) -> int:
        """Number of rows that differed, the signed model's included."""
        return self.outcome.differed + (self.outcome.model.differed if self.outcome.model else 0)

    @property
    def drawn(self) -> int:
        """Number of rows drawn, the signed model's included."""
        return self.outcome.rows + (self.outcome.model.rows if self.outcome.model else 0)

    @property
    def of_model(self) -> bool:
        """Whether the model measured again is the one that the report covers, if it covers one."""
        shown = self.outcome.model is not None and self.outcome.model.holds
        return not self.covers or self.outcome.how == "model-measured" or shown

    @property
    def sentence(self) -> str:
        """The result in fixed words."""
        outcome = self.outcome
        share = f"at most {float(outcome.bound):.2%} of them differ"
        if outcome.rows < outcome.of:
            share += f" with {CONFIDENCE:.0%} confidence"
        return (
            f"{HOW[outcome.how]}: {outcome.rows} of {outcome.of} losses drawn by seed {outcome.seed}, {outcome.differed} differed; {share}"
            + (f"; {outcome.model.words}" if outcome.model else "")
            + ("" if self.independent else "; done by a signer of the report itself")
        )


def draw(losses: bytes, seed: int, rows: int, config: str | None = None) -> list[int]:
    """Line numbers (the first row is line 2) of losses.csv drawn by a seed, sorted; all lines if there are fewer.

    config: draw from its rows only.

    Lines are ordered by an HMAC of what they are about, without their losses.
    """
    key = str(seed).encode()
    keyed = []
    for number, line in enumerate(losses.decode("ascii").split("\n")[1:-1], start=2):
        cells = line.split(",")
        if config is None or cells[0] == config:
            keyed.append((hashing.hmac_sha256(key, *cells[:-1]), number))
    return sorted(number for _, number in sorted(keyed)[:rows])


def pool(losses: bytes, config: str | None) -> int:
    """Number of rows to draw from."""
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
    """Number of drawn rows that differ, and the largest difference in thousandths; a row that cannot be measured counts as 1000."""
    joined = drawn.join(measured, on=["config", "split", "risk", "query"], how="left")
    apart = (pl.col("signed") - pl.col("loss").cast(pl.Int64)).abs().fill_null(1000)
    differences = joined.select(apart.alias("apart"))["apart"].to_numpy()
    return int((differences > 0).sum()), int(differences.max(initial=0))


def bound(differed: int, rows: int, of: int) -> str:
    """Largest share of all rows that may differ: exact binomial (Clopper and Pearson), rounded up; exact where all were drawn.

    >>> bound(0, 299, 10_000), bound(3, 100, 100)
    ('0.00997', '0.03')
    """
    if rows == of:
        return str(exact(up(differed / of, exact=True)))
    return str(exact(up(float(upper_from_count(np.array([differed]), rows, 1 - CONFIDENCE)[0]))))


def document(
    losses: bytes, seed: int, lines: Sequence[int], config: str | None, counts: tuple[int, int], **asserted: Any
) -> dict[str, Any]:
    """The predicate. counts: see `compare`. asserted: what only its signer can state: signed, role, keyid, harness, environment."""
    of = pool(losses, config)
    return {
        "schema": "1", "how": "trained-again" if config is None else "model-measured", "seed": str(seed),
        "rows": len(lines), "of": of, "lines": list(lines), "differed": counts[0], "largest": counts[1],
        "confidence": exact(CONFIDENCE), "bound": bound(counts[0], len(lines), of), **asserted,
    }  # fmt: skip


def of_model(
    losses: bytes, seed: int, config: str, digest_: str | None, same: bool, counts: tuple[int, int] | None, rows: int
) -> dict[str, Any]:
    """The predicate's entry about the signed model, see `SignedModel`. digest_: of weights. counts: see `compare`; None if not measured."""
    lines = draw(losses, seed, rows, config) if counts is not None else []
    of = pool(losses, config) if counts is not None else 0
    differed, largest = counts or (0, 0)
    return {
        "how": "same-weights" if same else "not-compared" if counts is None else "measured", "config": config, "digest": digest_,
        "rows": len(lines), "of": of, "lines": lines, "differed": differed, "largest": largest,
        "bound": bound(differed, len(lines), of) if counts is not None else None,
    }  # fmt: skip


def check(
    subject: Mapping[str, str], predicate: Mapping[str, Any], signers: Sequence[str], parties: Sequence[str], facts: Facts, losses: bytes,
    report: Mapping[str, Any], payload: str, now: datetime, share: float = SHARE,
) -> Reexecution:  # fmt: skip
    """Check a verified statement against the report and its losses. VerificationError where it is about others.

    parties: trusted keys that signed the report.
    now: aware time.
    share: see `Reexecution`.
    """
    if dict(subject) != {SUBJECT: payload}:
        raise VerificationError("reexecution-other-report", "the re-execution is about another report")
    outcome: Outcome = documents.parse(Outcome, predicate, "reexecution-shape")
    if outcome.keyid not in signers:
        raise VerificationError(
            "reexecution-signer", "the re-execution names a signer whose trusted key did not sign it"
        )
    if outcome.signed < report["issued"]:
        raise VerificationError("reexecution-before-report", "the re-execution is older than the report")
    if moment(outcome.signed) > now + CLOCK_SKEW:
        raise VerificationError("reexecution-in-future", f"the re-execution says it was signed at {outcome.signed}")
    config = None if outcome.how == "trained-again" else report["config"]
    if config is not None and not facts.files:
        raise VerificationError("reexecution-other-report", "a model was measured again, and the report covers none")
    if outcome.lines != draw(losses, int(outcome.seed), outcome.rows, config):
        raise VerificationError("reexecution-draw", "the rows are not those that the seed draws")
    if outcome.differed > outcome.rows or (outcome.differed > 0) != (outcome.largest > 0):
        raise VerificationError("reexecution-counts", "the re-execution counts more than it drew")
    recomputed = document(losses, int(outcome.seed), outcome.lines, config, (outcome.differed, outcome.largest))
    if any(predicate[name] != value for name, value in recomputed.items()):
        raise VerificationError("reexecution-bound", "the bound is not the one that follows from the counts")
    if outcome.model is not None:
        _refuse_model(outcome, outcome.model, facts, losses, report["config"])
    named = {signer["keyid"] for signer in report["signers"]}
    named |= {*parties, *facts.plan_signers}
    return Reexecution(outcome, tuple(signers), not named & {outcome.keyid}, share, bool(facts.files))


def _refuse_model(outcome: Outcome, model: SignedModel, facts: Facts, losses: bytes, config: str) -> None:
    """VerificationError where a statement claims of the signed model what it cannot."""
    if not facts.files or outcome.how != "trained-again" or model.config != config:
        raise VerificationError("reexecution-model", "the re-execution compares a model that the report does not cover")
    sealed = facts.seal.weights_of(config)
    if model.how != "not-compared" and (model.digest is None or sealed not in (None, model.digest)):
        raise VerificationError(
            "reexecution-weights", "the model that was compared has other weights than those that were sealed"
        )
    counts = model.differed, model.largest
    if model.differed > model.rows or (model.differed > 0) != (model.largest > 0):
        raise VerificationError("reexecution-counts", "the re-execution counts more than it drew of the model")
    same, measured = model.how == "same-weights", model.how == "measured"
    recomputed = of_model(
        losses, int(outcome.seed), config, model.digest, same, counts if measured else None, model.rows
    )
    if model.model_dump() != recomputed or (measured and not model.rows):
        raise VerificationError("reexecution-draw", "the model was not measured on the rows that the seed draws")


def refuse_rows(rows: int) -> None:
    """InputError for a number of rows that cannot be drawn."""
    if not 1 <= rows <= MOST:
        raise InputError(f"--rows {rows} is outside 1 .. {MOST}; 299 show that at most 1 % differ")


def refuse_share(share: float) -> None:
    """InputError for a share of losses outside [0, 1)."""
    if not 0 <= share < 1:
        raise InputError(f"--share {share} is outside 0 .. 1; 0.05 asks that at most 5 % of all losses differ")


def refuse_role(role: str) -> None:
    """InputError for an unknown role."""
    if role not in get_args(Role):
        raise InputError(f"no role is called {role!r}; there are: {', '.join(get_args(Role))}")


def sign(payload: str, predicate: Mapping[str, Any], signer: keys.PrivateKey) -> bytes:
    """reexecution.dsse.json: a statement about the signed bytes of a report.

    payload: their SHA-256. predicate: see `document`.
    """
    return keys.sign(keys.statement({SUBJECT: payload}, PREDICATE, predicate), [signer])
