"""Assumed distributions of a sampling unit's loss, as (SCALE + 1,) probabilities of thousandths. Torch-free.

Plans depend on these assumptions; certificates do not.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from froc.bounds import FloatArray, Losses
from froc.errors import InputError
from froc.loss_table import SCALE

Law = FloatArray


def zero_one(risk: float) -> Law:
    """Losses of 0 or 1 with mean `risk` in [0, 1]: the distribution on [0, 1] with this mean and the largest variance."""
    law = np.zeros(SCALE + 1)
    law[0], law[SCALE] = 1.0 - risk, risk
    return law


def beta_losses(risk: float, deviation: float) -> Law:
    """Beta losses with this mean and standard deviation, rounded up to thousandths as measured losses are.

    InputError where no distribution on [0, 1] with this mean has that standard deviation, or where it is 0.
    """
    max_deviation = float(np.sqrt(risk * (1.0 - risk)))
    if not 0.0 < deviation < max_deviation:
        raise InputError(
            f"losses with mean {risk:g} have a standard deviation between 0 and {max_deviation:.4g}, not {deviation:g}; "
            "leave the spread out for the widest"
        )
    concentration = risk * (1.0 - risk) / deviation**2 - 1.0
    reached = special.betainc(risk * concentration, (1.0 - risk) * concentration, np.arange(SCALE + 1) / SCALE)
    return np.asarray(np.diff(reached, prepend=0.0))


def clustered(risk: float, size: int, correlation: float) -> Law:
    """Means of `size` losses of 0 or 1 that correlate by `correlation` in [0, 1] (beta-binomial), rounded up.

    1: all losses of a cluster are equal, which is the worst case; 0: they are independent.
    """
    if not 0.0 <= correlation <= 1.0:
        raise InputError(f"correlation {correlation:g} is outside [0, 1]")
    if correlation == 1.0 or size == 1 or risk in (0.0, 1.0):
        return zero_one(risk)
    lost = np.arange(size + 1.0)
    ways = special.gammaln(size + 1.0) - special.gammaln(lost + 1.0) - special.gammaln(size - lost + 1.0)
    if correlation == 0.0:
        logs = special.xlogy(lost, risk) + special.xlog1py(size - lost, -risk)
    else:
        concentration = (1.0 - correlation) / correlation
        a, b = risk * concentration, (1.0 - risk) * concentration
        logs = special.betaln(lost + a, size - lost + b) - special.betaln(a, b)
    chances, places = np.exp(ways + logs), -(-np.arange(size + 1) * SCALE // size)
    # with more than a thousand queries, several counts fall on the same thousandth
    return np.bincount(places, weights=chances / chances.sum(), minlength=SCALE + 1).astype(np.float64)


def binary(law: Law) -> bool:
    """Whether losses are 0 or 1."""
    return bool(law[1:SCALE].sum() == 0.0)


def mean(law: Law) -> float:
    """The risk, in [0, 1]."""
    return float(law @ np.arange(SCALE + 1)) / SCALE


def draws(law: Law, luck: FloatArray) -> Losses:
    """Losses in thousandths from uniform numbers of any shape, by the inverse distribution function."""
    values = np.flatnonzero(law)
    reached = law[values].cumsum()
    places = np.searchsorted(reached[:-1], luck, side="right")
    return values.astype(np.int16)[places]


def listed_losses(law: Law, many: int) -> NDArray[np.int16]:
    """(many,) losses of a list: quantiles of the distribution."""
    return np.asarray(draws(law, (np.arange(many) + 0.5) / many), dtype=np.int16)
