"""p-values of small inputs as exact fractions: floats agree to twelve digits, and what a certificate prints is never below."""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from math import comb, prod

import numpy as np
import pytest

from froc.bounds import Bound, Losses, _aimed_betting, betting
from froc.bounds._aimed_betting import AimedBetting
from froc.bounds.mixture import BET_FRACTIONS
from froc.bounds.normal_test_betting import NormalTestBetting
from froc.bounds.star_betting import StarBetting
from froc.loss_table import SCALE
from froc.plugins import make
from froc.risk.rounding import up_p

INPUTS = 200


def inputs(binary: bool) -> Iterator[tuple[Losses, Fraction]]:
    """Losses (1, n) of 1 to 12 units, and a risk in hundredths."""
    rng = np.random.default_rng(2027)
    for _ in range(INPUTS):
        values = (
            rng.integers(0, 2, rng.integers(1, 13)) * SCALE
            if binary
            else rng.integers(0, SCALE + 1, rng.integers(1, 13))
        )
        yield values[None, :].astype(np.int64), Fraction(int(rng.integers(1, 100)), 100)


def at_risk(capital: Fraction) -> Fraction:
    return 1 / max(Fraction(1), capital)


def binomial(losses: Losses, risk: Fraction) -> Fraction:
    n, k = losses.shape[1], int(losses.sum()) // SCALE
    return Fraction(sum(comb(n, j) * risk**j * (1 - risk) ** (n - j) for j in range(k + 1)))


def hypergeometric(losses: Losses, risk: Fraction) -> Fraction:
    """Of a list of 20, with the fewest losses that are above the risk."""
    n, k, lost = losses.shape[1], int(losses.sum()) // SCALE, int(risk * 20) + 1
    ways = sum(comb(lost, j) * comb(20 - lost, n - j) for j in range(k + 1) if n - j <= 20 - lost)
    return Fraction(ways, comb(20, n)) if lost <= 20 else Fraction(0)


def mixture(losses: Losses, risk: Fraction) -> Fraction:
    shares = [Fraction(2 * place + 1, 24) for place in range(len(BET_FRACTIONS))]
    products = [
        prod((1 - share / (1 - risk) * (Fraction(int(x), SCALE) - risk) for x in losses[0]), start=Fraction(1))
        for share in shares
    ]
    return at_risk(sum(products, Fraction(0)) / len(shares))


def won(losses: Losses, risk: Fraction, stakes: list[float]) -> Fraction:
    """One over the largest capital, of bets as the floats that were placed."""
    capital = most = Fraction(1)
    for x, stake in zip(losses[0], stakes, strict=True):
        capital *= 1 - Fraction(stake) * (Fraction(int(x), SCALE) - risk)
        most = max(most, capital)
    return at_risk(most)


def by_betting(losses: Losses, risk: Fraction) -> Fraction:
    return won(losses, risk, [float(stake) for stake in betting.bets(losses / SCALE, 0.1)[0]])


def by_aimed_betting(bound: type[AimedBetting], losses: Losses, risk: Fraction) -> Fraction:
    """Bets that look at the capital are placed again, one after the other."""
    scale, room, capital = _aimed_betting.scales(losses / SCALE), np.array([-np.log(0.1)]), np.ones(1)
    limits, placed = np.array([_aimed_betting.STAKE / (1 - float(risk))]), list[float]()
    for t, x in enumerate(losses[0]):
        stake = np.minimum(limits, bound.unscaled_bets(_aimed_betting.to_aim(capital, room)) * scale[:, t])
        placed.append(float(stake[0]))
        capital = capital * (1 - stake * (x / SCALE - float(risk)))
    return won(losses, risk, placed)


@pytest.mark.parametrize(
    ("bound", "exact", "binary"),
    [
        (make(Bound, "binomial"), binomial, True),
        (make(Bound, "hypergeometric", {"population": 20}), hypergeometric, True),
        (make(Bound, "mixture"), mixture, False),
        (make(Bound, "betting"), by_betting, False),
        (make(Bound, "star_betting"), partial(by_aimed_betting, StarBetting), False),
        (make(Bound, "normal_test_betting"), partial(by_aimed_betting, NormalTestBetting), False),
    ],
    ids=["binomial", "hypergeometric", "mixture", "betting", "star_betting", "normal_test_betting"],
)  # fmt: skip
def test_p_values_as_fractions(bound: Bound, exact: object, binary: bool) -> None:
    assert callable(exact)
    for losses, risk in inputs(binary):
        p, fraction = float(bound.p_value(losses, float(risk))[0]), exact(losses, risk)
        assert p == pytest.approx(float(fraction), rel=1e-12, abs=1e-300)
        assert Fraction(up_p(p)) >= fraction
