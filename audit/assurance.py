"""Assurance levels: what supports a report that verifies, and what would support it further.

Levels are numbered from the cheapest to the most expensive. A level does not include the lower ones: losses can be
measured again for a report whose model is not available.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from froc import provenance
from froc.audit.bundle_files import moment
from froc.audit.documents import Plan
from froc.audit.reexecution import REPRODUCED, Reexecution
from froc.audit.report import Facts
from froc.audit.timestamps import Proven
from froc.bounds import Bound
from froc.plan_identity import draw_label
from froc.plugins import find

NO_CONTROL = "its plan did not ask what the base model shows: nothing says that there was anything to remove (reports of older versions are so; whoever makes one today leaves it out)"
UNBOUND = "no digest of the model's weights was sealed: nothing ties the losses to this model (reports of older versions are so; whoever makes one today leaves it out)"
DIFFERED = "its losses were not found again"
FOREIGN = "it was measured by code that is not froc's and that its plan does not name (plans of older versions are so; whoever hides code today leaves it out)"
REOPENED = "its calibration queries had been opened more often than was planned: the confidence that the plan states does not hold"

ORDERED = "a bound of its plan reads the losses in an order that nothing fixed before they were known (reports of older versions are so; whoever tries many orders today leaves the label out or makes one up)"


@dataclass(frozen=True)
class Level:
    """An assurance level.

    number: 1 to 5, as in L1.
    holds: whether it is reached.
    words: what that means, or what reaching it takes.
    """

    number: int
    holds: bool
    words: str

    @property
    def name(self) -> str:
        """The level as it is printed."""
        return f"L{self.number}"


def levels(facts: Facts, compared: bool, proven: Proven, again: Reexecution | None) -> tuple[Level, ...]:
    """All levels of a report whose signature and statistics hold. compared: whether the model on disk was compared."""
    stamped, words = _plan(facts, proven)
    return (
        Level(1, True, "trusted keys signed these exact bytes"),
        Level(2, compared and bool(facts.files), _model(facts, compared)),
        Level(3, True, "every number follows from the losses, computed again here"),
        Level(4, stamped, words),
        Level(5, again is not None and again.assurance == REPRODUCED, _measured(again) + _compared(facts, again)),
    )


def reservations(facts: Facts, again: Reexecution | None, opening: int) -> tuple[str, ...]:
    """Reasons why a verified report that says PASS still needs a qualification; empty if there are none.

    opening: which opening of the calibration queries the report was made after, by its signer's count.
    """
    reasons = {
        NO_CONTROL: facts.plan.control is None,
        UNBOUND: bool(facts.files) and facts.seal.base_weights_digest is None,
        DIFFERED: again is not None and again.differed > 0,
        FOREIGN: facts.plan.plugins is None and bool(provenance.unknown(facts.plan.model_dump())),
        REOPENED: opening > facts.plan.openings,
        ORDERED: _order_was_free(facts.plan),
    }
    return tuple(reason for reason, holds in reasons.items() if holds)


def _compared(facts: Facts, again: Reexecution | None) -> str:
    """What measuring again leaves out."""
    return "" if again is None or facts.compared is None else "; the comparison of methods was not measured again"


def _order_was_free(plan: Plan) -> bool:
    """Whether the order of the queries, which some bounds depend on, could have been chosen after the losses were known."""
    label = draw_label(plan.task.digest, plan.task.split_seed, plan.model.digest)
    depends = any(not find(Bound, name).order_free for name in plan.bound.values())
    return depends and plan.split.label != label


def _model(facts: Facts, compared: bool) -> str:
    if not facts.files:
        return "the report covers no model"
    return "the model is the one that was signed, byte by byte" if compared else "give the model's folder: --model DIR"


def _plan(facts: Facts, proven: Proven) -> tuple[bool, str]:
    stamped = stamped_at(facts.plan_signers, proven.plan)
    if stamped is not None:
        # trials are logged in whole seconds
        held = bool(facts.first) and stamped.replace(microsecond=0) <= moment(facts.first)
        order = "before" if held else "not before"
        return (
            held,
            f"an independent clock stamped the plan at {stamped:%Y-%m-%dT%H:%M:%SZ}, {order} the first logged trial",
        )
    if proven.tokens and not proven.checked:
        return False, "list the authority whose time stamps you trust in the trust file (tsa)"
    return False, "the plan has no time stamp: froc search --key KEY --tsa URL asks for one before the first trial"


def stamped_at(signers: tuple[str, ...], times: Mapping[str, datetime]) -> datetime | None:
    """The earliest trusted time by which one of the signatures existed; None without a time stamp."""
    return min((times[keyid] for keyid in signers if keyid in times), default=None)


def _measured(again: Reexecution | None) -> str:
    if again is None:
        return "have somebody else measure losses again: froc audit reexecute"
    return again.sentence + (f"; not enough: {again.lacks}" if again.lacks else "")
