"""The claim that is to be certified, and the p-values and bounds it asks for. Torch-free.

Numbers that a certificate prints are rounded here, always against the claim.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from froc import procedures
from froc.bounds import Bound, Losses
from froc.errors import InputError
from froc.losses import UNITS
from froc.plugins import find, make

SLACK = Decimal("1e-12")
"""Rounding gives this much (relative) away, so that no machine's last bits can round in the claim's favour."""
TINY = Decimal("1e-300")
"""No p-value is printed smaller; a bound that underflows to 0 has not proved certainty."""


@dataclass(frozen=True)
class Candidate:
    """A configuration to be tested; candidates stand in testing order, weight is 1 / rank."""

    config: str
    method: str
    params: dict[str, Any]
    weight: float


@dataclass(frozen=True)
class Claim:
    """What is to be certified, all of it fixed before calibration is opened.

    budget: risk -> accepted risk in (0, 1). bound, unit: per risk. openings: planned looks, each at
    delta / openings; opening: which look this is.
    """

    budget: dict[str, float]
    bound: dict[str, str]
    unit: Mapping[str, str]
    confidence: float = 0.9
    procedure: str = procedures.DEFAULT
    population: str = "queries"
    openings: int = 1
    opening: int = 1
    joint: bool = False


def level(claim: Claim) -> float:
    """The error level that one statement of this opening spends."""
    # 1 - 0.9 is 0.0999...98 in floats; the user said 0.1
    return round(1.0 - claim.confidence, 12) / claim.openings / (2 if claim.joint else 1)


def refuse_unknown(claim: Claim) -> None:
    """InputError for a claim that cannot be certified as said: unknown names, levels and budgets out of range."""
    procedures.refuse_unknown(claim.procedure)
    if not claim.budget:
        raise InputError("no risk has a budget; give at least one, such as --budget forgetting=0.1")
    if not 0 < claim.confidence < 1:
        raise InputError(f"confidence {claim.confidence:g} is outside (0, 1)")
    if claim.openings < 1 or claim.opening < 1:
        raise InputError("openings are counted from 1")
    if not 0 < level(claim) < 1:
        raise InputError(f"confidence {claim.confidence!r} leaves no error level to spend; lower it")
    for risk, alpha in claim.budget.items():
        if not 0 < alpha < 1:
            raise InputError(f"budget {risk}={alpha:g} is outside (0, 1); a budget is an accepted risk such as 0.1")
        if risk not in claim.bound or risk not in claim.unit:
            raise InputError(f"risk {risk!r} has a budget but no bound or unit; name them")
        find(Bound, claim.bound[risk])
        if claim.unit[risk] not in UNITS:
            raise InputError(f"no unit is called {claim.unit[risk]!r}; there are: {', '.join(UNITS)}")


def p_values(claim: Claim, risk: str, losses: Losses, candidates: int, alpha: float | None = None) -> list[float]:
    """(m,) rounded p-values of one risk at its budget, or at `alpha`; losses: (m, n) thousandths."""
    # bets aim at the level that each of equally weighted candidates would get: known before calibration
    aim = float(procedures.first_levels(claim.procedure, np.ones(candidates), level(claim))[0])
    found = _bound(claim.bound[risk], aim).p_value(losses, claim.budget[risk] if alpha is None else alpha)
    return [up_p(float(p)) for p in found]


def uppers(claim: Claim, risk: str, losses: Losses, delta: float) -> list[float]:
    """(m,) rounded upper bounds of one risk at error `delta`."""
    return [up(float(u)) for u in _bound(claim.bound[risk], delta).upper(losses, delta)]


@lru_cache(maxsize=32)
def _bound(name: str, aim: float) -> Bound:
    # looking a plug-in up takes longer than most bounds, and a search for budgets asks for the same one again
    return make(Bound, name, {"level": aim} if name == "betting" else None)


def up_p(value: float) -> float:
    """A p-value rounded up to 6 significant digits; at most 1, never 0."""
    exact = max(Decimal(value) * (1 + SLACK), TINY)
    return min(1.0, float(Context(prec=6, rounding=ROUND_CEILING).plus(exact)))


def up(value: float, decimals: int = 6) -> float:
    """A risk rounded up to so many decimals; at most 1."""
    step = Decimal(1).scaleb(-decimals)
    return min(1.0, float((Decimal(value) * (1 + SLACK)).quantize(step, ROUND_CEILING)))


def down(value: float, decimals: int = 6) -> float:
    """A radius rounded down to so many decimals."""
    return float((Decimal(value) * (1 - SLACK)).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR))
