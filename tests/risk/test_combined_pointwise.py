"""The combined risk: its bound for one candidate alone, and unequal parts within a radius, against other code than ours."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, binom

from froc.loss_table import SCALE
from froc.risk.certificate import Candidate, decide
from froc.risk.claim import Claim

RISKS = ("forgetting", "utility")
LOST = {"forgetting": (4, 20), "utility": (6, 2)}
"""Losses of 1 of two candidates."""
UNITS = {"forgetting": 200, "utility": 300}
UNEQUAL = {"forgetting": 0.3, "utility": 0.6}
DELTA = 0.1


def decided(budget: float, **fields: Any) -> dict[str, Any]:
    """The certificate of both candidates about 0.3 forgetting + 0.6 utility."""
    losses = {
        risk: np.where(np.arange(UNITS[risk]) < np.array(LOST[risk])[:, None], SCALE, 0).astype(np.int16)
        for risk in RISKS
    }
    claim = Claim(
        {"combined": budget}, dict.fromkeys(RISKS, "binomial"), dict.fromkeys(RISKS, "query"), weights=UNEQUAL, **fields
    )
    return decide(losses, [Candidate("c0", "", {}, 1.0), Candidate("c1", "", {}, 0.5)], claim)


def clopper_pearson(lost: int, units: int, delta: float) -> float:
    return float(beta.ppf(1.0 - delta, lost + 1, units - lost))


def shifted(risk: float, radius: float) -> float:
    """The worst risk of a 0-1 loss within a Hellinger distance: sin^2(asin sqrt(risk) + acos(1 - radius^2))."""
    return math.sin(min(math.pi / 2, math.asin(math.sqrt(risk)) + math.acos(1.0 - radius**2))) ** 2


def shrunk(budget: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """The risk that is shifted to a budget; 0 where none is."""
    angle = np.arcsin(np.sqrt(budget)) - math.acos(1.0 - radius**2)
    return np.sin(np.maximum(0.0, angle)) ** 2


@pytest.mark.parametrize(
    ("kind", "share", "radius"),
    [
        ("pointwise", 2, 0.0),
        ("pointwise", 2, 0.05),
        ("simultaneous", 4, 0.0),
        ("simultaneous", 4, 0.05),
    ],
)
def test_bounds_of_the_sum_by_clopper_pearson(kind: str, share: int, radius: float) -> None:
    """Pointwise: both parts together err at delta, each at a half. Simultaneous: over two candidates, each at a quarter."""
    for place, row in enumerate(decided(0.1, radius=radius)["candidates"]):
        parts = {
            risk: shifted(clopper_pearson(LOST[risk][place], UNITS[risk], DELTA / share), radius) for risk in RISKS
        }
        wanted = 0.3 * parts["forgetting"] + 0.6 * parts["utility"]
        assert row["cur"]["combined"][kind] == pytest.approx(wanted, abs=3e-6)


@pytest.mark.parametrize("radius", [0.0, 0.05])
def test_the_bound_of_a_part_alone_errs_at_the_whole_delta(radius: float) -> None:
    for place, row in enumerate(decided(0.1, radius=radius)["candidates"]):
        for risk in RISKS:
            alone = shifted(clopper_pearson(LOST[risk][place], UNITS[risk], DELTA), radius)
            assert row["cur"][risk]["pointwise"] == pytest.approx(alone, abs=3e-6)


@pytest.mark.parametrize("radius", [0.0, 0.03])
@pytest.mark.parametrize("budget", [0.04, 0.07])
def test_the_p_value_is_the_worst_split_of_the_budget(budget: float, radius: float) -> None:
    """Over 100,000 splits 0.3 r + 0.6 q = budget: the largest of 2 min(p(r), p(q)), each risk's level shrunk for the radius."""
    rows = decided(budget, radius=radius)["candidates"]
    first = np.linspace(0.0, budget / 0.3, 100_001)[1:-1]
    levels = {"forgetting": first, "utility": (budget - 0.3 * first) / 0.6}
    for place, row in enumerate(rows):
        parts = [binom.cdf(LOST[risk][place], UNITS[risk], shrunk(levels[risk], radius)) for risk in RISKS]
        wanted = min(1.0, 2.0 * float(np.minimum(*parts).max()))
        assert row["p_values"]["combined"] == pytest.approx(wanted, rel=2e-3)


def test_the_robust_radius_is_where_the_sum_of_shifted_parts_meets_the_budget() -> None:
    row = decided(0.1)["candidates"][0]
    parts = {risk: clopper_pearson(LOST[risk][0], UNITS[risk], DELTA / 4) for risk in RISKS}

    def excess(radius: float) -> float:
        return sum(UNEQUAL[risk] * shifted(parts[risk], radius) for risk in RISKS) - 0.1

    assert row["robust_radius"]["combined"] == pytest.approx(brentq(excess, 0.0, 0.9), abs=1e-4)
