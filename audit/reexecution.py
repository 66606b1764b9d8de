"""Losses measured again: which rows a seed draws, how they compare, and what follows.

A report's losses are its signer's claim. Another party draws rows of losses.csv with a seed chosen after the report was
signed, some of every configuration under every risk (`froc.audit.redraw`), measures them again and signs the counts, as a
second statement about the same signed bytes. If a share f of a group's rows were false, k drawn rows would all agree with
probability at most (1 - f)^k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import Field

from froc.audit import documents, keys, redraw
from froc.audit.bundle_files import Hex, Name, Stamp, Strict, moment
from froc.audit.canonical_json import exact
from froc.audit.chronology import CLOCK_SKEW
from froc.audit.documents import Environment, Harness, Role
from froc.audit.redraw import CONFIDENCE
from froc.audit.report import Facts
from froc.errors import InputError, VerificationError

NAME = "reexecution.dsse.json"
PREDICATE = "urn:froc:unlearning-reexecution:1"
SUBJECT = "report"
"""Subject of the statement: the bytes that the report's signatures cover."""
MOST = 100_000
REPRODUCED, SELF_ATTESTED = "reproduced", "self_attested"
SHARE = 0.05
"""Largest share of a configuration's losses under a risk that may differ, by the statement's bound, for a report to count as reproduced."""
HOW = {"trained-again": "drawn configurations trained again", "model-measured": "the chosen model measured"}


class GroupCount(Strict):
    """Counts of one configuration under one risk.

    rows, of: number of rows drawn, and of all rows of the group.
    differed: number of rows whose whole thousandths differ.
    largest: largest difference, in thousandths.
    bound: share of `of` that may differ; the bounds of all groups hold together.
    """

    config: str
    risk: str
    rows: int = Field(ge=1, le=MOST)
    of: int = Field(ge=1)
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    bound: str


class SignedModel(Strict):
    """What measuring again shows about the model that the report covers, beyond the losses.

    how: `same-weights`: `config` trained again has the sealed digest, `digest`. `measured`: training gave other bits,
        and the signed model with weights `digest` was measured on its own rows, drawn by the seed. `not-compared`:
        neither. `not-trained`: `config` could not be trained again.

    The other fields are as in `Outcome`, for those rows; 0, and no bound, where none were drawn.
    """

    how: Literal["same-weights", "measured", "not-compared", "not-trained"]
    config: str = Name
    digest: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0, le=MOST)
    of: int = Field(ge=0)
    lines: list[int]
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    bound: str | None
    each: int | None = None
    groups: list[GroupCount] | None = None

    @property
    def compared(self) -> bool:
        """Whether the signed model's weights were looked at."""
        return self.how in ("same-weights", "measured")

    @property
    def holds(self) -> bool:
        """Whether the signed model was shown to have the signed weights or losses."""
        return self.how == "same-weights" or (self.how == "measured" and self.differed == 0)

    @property
    def words(self) -> str:
        """The result in fixed words."""
        if self.how == "same-weights":
            return f"{self.config} trained again has the sealed weights, to the bit"
        if self.how == "not-trained":
            return f"{self.config} could not be trained again by its sealed method and settings: nothing was compared with the signed model"
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
    each: number of rows drawn of each group, a configuration under a risk; all of a smaller group.
    bound: share of a group's rows that may differ, in the worst group, at `confidence` for all groups together.

    Statements of schema 1 drew from all rows together: they have no groups, and their bound is of all rows.
    """

    schema_: Literal["1", "2"] = Field(alias="schema")
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
    each: int | None = None
    groups: list[GroupCount] | None = None


@dataclass(frozen=True)
class Reexecution:
    """A re-execution that verifies.

    independent: whether its signers did not sign the report or its plan, and are not named in it.
    share: largest share of a configuration's losses under a risk that may differ for the report to count as reproduced.
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
        if self.outcome.groups is None:
            return "rows were drawn from all losses together, so that few false ones of one configuration may be missed; measure again"
        if max(map(float, self.bounds)) > self.share:
            return f"more than {self.share:.2%} of a configuration's losses under a risk may differ; draw more rows"
        return ""

    @property
    def bounds(self) -> list[str]:
        """Shares of losses that may differ: of the worst group, and of the signed model's worst where it was measured itself."""
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
        each = "" if outcome.groups is None else " of any configuration under any risk"
        share = f"at most {float(outcome.bound):.2%} of the losses{each} differ"
        if outcome.rows < outcome.of:
            share += f" with {CONFIDENCE:.0%} confidence"
        return (
            f"{HOW[outcome.how]}: {outcome.rows} of {outcome.of} losses drawn by seed {outcome.seed}, {outcome.differed} differed; {share}"
            + (f"; {outcome.model.words}" if outcome.model else "")
            + ("" if self.independent else "; done by a signer of the report itself")
        )


def document(
    losses: bytes, seed: int, rows: int, config: str | None, counts: redraw.Counts, **asserted: Any
) -> dict[str, Any]:
    """The predicate.

    rows: drawn of each group.
    counts: see `froc.audit.redraw.compare`.
    asserted: what only its signer can state: signed, role, keyid, harness, environment.
    """
    return {
        "schema": "2", "how": "trained-again" if config is None else "model-measured", "seed": str(seed),
        "confidence": exact(CONFIDENCE), **redraw.counted(losses, seed, rows, config, counts), **asserted,
    }  # fmt: skip


def of_model(
    losses: bytes,
    seed: int,
    config: str,
    digest_: str | None,
    same: bool,
    counts: redraw.Counts | None,
    rows: int,
    trained: bool = True,
) -> dict[str, Any]:
    """The predicate's entry about the signed model, see `SignedModel`.

    digest_: of weights.
    counts: see `froc.audit.redraw.compare`; None if not measured.
    rows: drawn of each group.
    trained: whether `config` could be trained again.
    """
    how = "not-trained" if not trained else "same-weights" if same else "not-compared" if counts is None else "measured"
    described = {"how": how, "config": config, "digest": digest_}
    if counts is None:
        return described | {"rows": 0, "of": 0, "lines": [], "differed": 0, "largest": 0, "bound": None}
    return described | redraw.counted(losses, seed, rows, config, counts)


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
    _refuse_counts(outcome, losses, config, int(outcome.seed))
    if outcome.confidence != exact(CONFIDENCE) or outcome.seed != str(int(outcome.seed)):
        raise VerificationError("reexecution-bound", "the bound is not the one that follows from the counts")
    if outcome.model is not None:
        _refuse_model(outcome, outcome.model, facts, losses, report["config"])
    named = {signer["keyid"] for signer in report["signers"]}
    named |= {*parties, *facts.plan_signers}
    return Reexecution(outcome, tuple(signers), not named & {outcome.keyid}, share, bool(facts.files))


def _refuse_counts(said: Outcome | SignedModel, losses: bytes, config: str | None, seed: int) -> None:
    """VerificationError where counts are not of the rows that the seed draws, or a bound does not follow from them."""
    counted: Sequence[Outcome | SignedModel | GroupCount] = said.groups or [said]
    if said.groups is None or said.each is None:
        expected = redraw.counted_together(losses, seed, said.rows, config, said.differed, said.largest)
    else:
        counts = {(group.config, group.risk): (group.differed, group.largest) for group in said.groups}
        expected = redraw.counted(losses, seed, said.each, config, counts)
    if said.lines != expected["lines"]:
        raise VerificationError("reexecution-draw", "the rows are not those that the seed draws")
    if any(count.differed > count.rows or (count.differed > 0) != (count.largest > 0) for count in counted):
        raise VerificationError("reexecution-counts", "the re-execution counts more than it drew")
    written = said.model_dump(by_alias=True)
    if any(written[name] != value for name, value in expected.items()):
        raise VerificationError("reexecution-bound", "the bound is not the one that follows from the counts")


def _refuse_model(outcome: Outcome, model: SignedModel, facts: Facts, losses: bytes, config: str) -> None:
    """VerificationError where a statement claims of the signed model what it cannot."""
    if not facts.files or outcome.how != "trained-again" or model.config != config:
        raise VerificationError("reexecution-model", "the re-execution compares a model that the report does not cover")
    sealed = facts.seal.weights_of(config)
    if model.compared and (model.digest is None or sealed not in (None, model.digest)):
        raise VerificationError(
            "reexecution-weights", "the model that was compared has other weights than those that were sealed"
        )
    if model.how == "measured":
        _refuse_counts(model, losses, config, int(outcome.seed))
    elif model.model_dump() != SignedModel(
        how=model.how, config=model.config, digest=model.digest, rows=0, of=0, lines=[], differed=0, largest=0, bound=None
    ).model_dump():  # fmt: skip
        raise VerificationError("reexecution-draw", "rows are listed of a model that was not measured")


def refuse_lines(lines: int, rows: int) -> None:
    """InputError for more lines than a statement lists."""
    if lines > MOST:
        raise InputError(
            f"--rows {rows} draws {lines} losses of all configurations and risks, and a statement lists {MOST}; give fewer"
        )


def refuse_rows(rows: int) -> None:
    """InputError for a number of rows that cannot be drawn."""
    if not 1 <= rows <= MOST:
        raise InputError(f"--rows {rows} is outside 1 .. {MOST}; 299 of each configuration and risk are the default")


def refuse_share(share: float) -> None:
    """InputError for a share of losses outside [0, 1)."""
    if not 0 <= share < 1:
        raise InputError(
            f"--share {share} is outside 0 .. 1; 0.05 asks that at most 5 % of any configuration's losses differ"
        )


def refuse_role(role: str) -> None:
    """InputError for an unknown role."""
    if role not in get_args(Role):
        raise InputError(f"no role is called {role!r}; there are: {', '.join(get_args(Role))}")


def sign(payload: str, predicate: Mapping[str, Any], signer: keys.PrivateKey) -> bytes:
    """reexecution.dsse.json: a statement about the signed bytes of a report.

    payload: their SHA-256. predicate: see `document`.
    """
    return keys.sign(keys.statement({SUBJECT: payload}, PREDICATE, predicate), [signer])
