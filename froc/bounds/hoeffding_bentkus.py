"""Hoeffding-Bentkus bound."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import Bound, Losses, Reals, Wholes, shape, whole
from froc.bounds.binomial import inverse
from froc.losses import SCALE


@dataclass(frozen=True)
class HoeffdingBentkus(Bound):
    """The smaller of the Hoeffding-KL and Bentkus p-values, valid for every loss in [0, 1].

    p = min(exp(-n kl(min(r, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n r))), r the mean loss
    (Bates et al. 2101.02703; Learn then Test 2110.01052). Assumes independent units.
    """

    theorem: ClassVar[str] = "Hoeffding 1963; Bentkus 2004; Bates et al. 2101.02703"

    def p_value(self, losses: Losses, alpha: float) -> Reals:
        """(m,) p-values, MAPIE's."""
        _, n = shape(losses)
        return tail(_means(losses), whole(losses), n, alpha)

    def upper(self, losses: Losses, delta: float) -> Reals:
        """(m,) the smaller of the two inverted parts."""
        _, n = shape(losses)
        return ceiling(_means(losses), whole(losses), n, delta)


def tail(mean: Reals, k: Wholes, n: int, alpha: float) -> Reals:
    """(m,) p-values by MAPIE for mean losses with k = ceil(n mean), k known exactly."""
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    # MAPIE takes ceil(n * mean) in floats: step back where that would slip over the whole number k
    mean = np.where(np.ceil(mean * n) > k, np.nextafter(mean, 0.0), mean)
    p = compute_hoeffding_bentkus_p_value(mean, int(n), float(alpha))[:, 0]
    return np.asarray(np.clip(p, 0.0, 1.0), dtype=np.float64)


def ceiling(mean: Reals, k: Wholes, n: int, delta: float) -> Reals:
    """(m,) upper bounds at delta for mean losses with k = ceil(n mean)."""
    return np.minimum(inverse(k, n, delta / math.e), kl_upper(mean, n, delta))


def kl_upper(mean: Reals, n: int, delta: float) -> Reals:
    """(m,) largest u with n kl(mean, u) <= ln(1 / delta), by bisection from above; 1 - delta**(1/n) at mean 0."""
    room = math.log(1.0 / delta) / n
    low, high = mean.copy(), np.ones_like(mean)
    for _ in range(60):
        middle = 0.5 * (low + high)
        inside = kl(mean, middle) <= room
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def kl(a: Reals, b: Reals) -> Reals:
    """Relative entropy of Bernoulli(a) from Bernoulli(b) in nats, 0 log 0 = 0; infinite where b excludes a."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(a > 0, a * np.log(a / b), 0.0)
        second = np.where(a < 1, (1 - a) * np.log((1 - a) / (1 - b)), 0.0)
    return np.asarray(first + second)


def _means(losses: Losses) -> Reals:
    return np.asarray(losses.sum(axis=1) / (SCALE * losses.shape[1]))
