"""Losses measured again: which rows a seed draws, how they compare, and what follows.

A report's losses are its signer's claim. Another party draws rows of losses.csv with a seed chosen after the report was
signed, some of every configuration under every risk (`froc.audit.redraw`), measures them again and signs the counts, as a
second statement about the same signed bytes. If a share f of a group's rows were false, k drawn rows would all agree with
probability at most (1 - f)^k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from froc.audit import documents, keys, redraw
from froc.audit.bundle_files import moment
from froc.audit.canonical_json import exact
from froc.audit.chronology import CLOCK_SKEW
from froc.audit.documents import Role
from froc.audit.redraw import CONFIDENCE
from froc.audit.reexecution_statement import HOW, MOST_WITHIN, SCOPES, GroupCount, Outcome, SignedModel
from froc.audit.report import Facts
from froc.errors import InputError, VerificationError
from froc.risk.positive_control import BASE

NAME = "reexecution.dsse.json"
PREDICATE = "urn:froc:unlearning-reexecution:1"
SUBJECT = "report"
"""Subject of the statement: the bytes that the report's signatures cover."""
REPRODUCED, SELF_ATTESTED = "reproduced", "self_attested"
SHARE = 0.05
"""Largest share of a configuration's losses under a risk that may differ, by the statement's bound, for a report to count as reproduced."""


@dataclass(frozen=True)
class Reexecution:
    """A re-execution that verifies.

    independent: whether its signers did not sign the report or its plan, and are not named in it.
    share: largest share of a configuration's losses under a risk that may differ for the report to count as reproduced.
    covers: whether the report covers a model.
    exact: whether the run was computed so that its losses come again to the thousandth (--deterministic).
    rivals: whether one of several candidates was measured alone; whether it is certified depends on the others' losses, too.
    """

    outcome: Outcome
    signers: tuple[str, ...]
    independent: bool
    share: float = SHARE
    covers: bool = False
    rivals: bool = False
    exact: bool = False

    @property
    def assurance(self) -> str:
        """The report's level with it: reproduced, or still self_attested."""
        return SELF_ATTESTED if self.lacks else REPRODUCED

    @property
    def lacks(self) -> str:
        """Why the report does not count as reproduced, in fixed words; empty if it does."""
        if self.differed:
            return "losses differed"
        if self.exact and self.outcome.within:
            return (
                "the run was computed so that its losses come again exactly, and they were compared within a tolerance"
            )
        if not self.independent:
            return "a signer of the report measured them"
        if not self.of_model:
            return "whether the signed model has these losses was not looked at"
        if self.outcome.groups is None:
            return "rows were drawn from all losses together, so that few false ones of one configuration may be missed; measure again"
        if self.rivals:
            return "the losses of the other candidates were not measured again: leave --unlearned out, or use --model"
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
        each = "" if outcome.groups is None else f" of {SCOPES[outcome.how]} under any risk"
        items = "losses" if len(outcome.lines) == outcome.rows else "losses, or groups of them,"
        apart = f" by more than {outcome.within / 1000:g}" if outcome.within else ""
        share = f"at most {float(outcome.bound):.2%} of the losses{each} differ{apart}"
        if outcome.rows < outcome.of:
            share += f" with {CONFIDENCE:.0%} confidence"
        return (
            f"{HOW[outcome.how]}: {outcome.rows} of {outcome.of} {items} drawn by seed {outcome.seed}, {outcome.differed} differed; {share}"
            + (f"; {outcome.model.words}" if outcome.model else "")
            + ("" if self.independent else "; done by a signer of the report itself")
        )


def document(
    losses: bytes, seed: int, rows: int, scope: redraw.Scope, counts: redraw.Counts, **asserted: Any
) -> dict[str, Any]:
    """The predicate.

    rows: rows or units drawn per group, of `scope`.
    counts: see `froc.audit.redraw.compare`.
    asserted: what only its signer can state: signed, role, keyid, harness, environment.
    """
    return {
        "schema": "2", "how": "trained-again" if scope.configs is None else "model-measured", "seed": str(seed),
        "confidence": exact(CONFIDENCE), **redraw.counted(losses, seed, rows, scope, counts), **asserted,
    }  # fmt: skip


def of_model(
    losses: bytes,
    seed: int,
    config: str,
    by_unit: frozenset[str],
    digest_: str | None,
    same: bool,
    counts: redraw.Counts | None,
    rows: int,
    trained: bool = True,
) -> dict[str, Any]:
    """The predicate's entry about the signed model, see `SignedModel`.

    digest_: of weights.
    counts: see `froc.audit.redraw.compare`; None if not measured.
    rows: rows or units drawn per group; by_unit: see `froc.audit.redraw.Scope`.
    trained: whether `config` could be trained again.
    """
    how = "not-trained" if not trained else "same-weights" if same else "not-compared" if counts is None else "measured"
    described = {"how": how, "config": config, "digest": digest_}
    if counts is None:
        return described | {"rows": 0, "of": 0, "lines": [], "differed": 0, "largest": 0, "bound": None}
    return described | redraw.counted(losses, seed, rows, redraw.Scope((config,), by_unit), counts)


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
    _refuse_counts(outcome, losses, config, scope_of(facts, config), int(outcome.seed))
    if outcome.confidence != exact(CONFIDENCE) or outcome.seed != str(int(outcome.seed)):
        raise VerificationError("reexecution-bound", "the bound is not the one that follows from the counts")
    if outcome.model is not None:
        _refuse_model(outcome, outcome.model, facts, losses, report["config"])
    named = {signer["keyid"] for signer in report["signers"]}
    named |= {*parties, *facts.plan_signers}
    rivals = config is not None and len(facts.seal.candidates) > 1
    return Reexecution(
        outcome, tuple(signers), not named & {outcome.keyid}, share, bool(facts.files), rivals,
        exact=facts.plan.environment.get("deterministic") == "yes",
    )  # fmt: skip


def scope_of(facts: Facts, config: str | None) -> redraw.Scope:
    """The rows to draw from: all, or those of one configuration and of the base model, which shows what there was to remove."""
    by_unit = frozenset(risk for risk, unit in facts.plan.task.units.items() if unit == "group")
    return redraw.Scope(None if config is None else (BASE, config), by_unit)


def _refuse_counts(
    statement: Outcome | SignedModel, losses: bytes, config: str | None, scope: redraw.Scope, seed: int
) -> None:
    """VerificationError where counts are not of the rows that the seed draws, or a bound does not follow from them."""
    counted: Sequence[Outcome | SignedModel | GroupCount] = statement.groups or [statement]
    if statement.groups is None or statement.each is None:
        expected = redraw.counted_together(losses, seed, statement.rows, config, statement.differed, statement.largest)
    else:
        counts = {(group.config, group.risk): (group.differed, group.largest) for group in statement.groups}
        expected = redraw.counted(losses, seed, statement.each, scope, counts)
    if statement.lines != expected["lines"]:
        raise VerificationError("reexecution-draw", "the rows are not those that the seed draws")
    if any(count.differed > count.rows or (count.differed > 0) != (count.largest > 0) for count in counted):
        raise VerificationError("reexecution-counts", "the re-execution counts more than it drew")
    written = statement.model_dump(by_alias=True)
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
        scope = redraw.Scope((config,), scope_of(facts, config).by_unit)
        _refuse_counts(model, losses, config, scope, int(outcome.seed))
    elif model.model_dump() != SignedModel(
        how=model.how, config=model.config, digest=model.digest, rows=0, of=0, lines=[], differed=0, largest=0, bound=None
    ).model_dump():  # fmt: skip
        raise VerificationError("reexecution-draw", "rows are listed of a model that was not measured")


def refuse_share(share: float) -> None:
    """InputError for a share of losses outside [0, 1)."""
    if not 0 <= share < 1:
        raise InputError(
            f"--share {share} is outside 0 .. 1; 0.05 asks that at most 5 % of any configuration's losses differ"
        )


def refuse_within(within: int, environment: Mapping[str, Any]) -> None:
    """InputError for a tolerance out of range, or where the run was computed to the same bits, so that nothing may differ."""
    if not 0 <= within <= MOST_WITHIN:
        raise InputError(f"--within {within} is outside 0 .. {MOST_WITHIN} thousandths")
    if within and environment.get("deterministic") == "yes":
        raise InputError(
            "the run was computed with --deterministic, so that its losses come again exactly; leave --within out"
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
