"""Bets that copy the normal test: the capital follows the chance that it would reject at the last unit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import FloatArray
from froc.bounds._aimed_betting import AimedBetting

SHRINKAGE = 0.35
"""How soon bets shrink near the aim: they stay within 8 % of the normal test's own from .001 to .5 of it."""
OVERSHOOT = 0.02
"""How far beyond the aim, in ln, bets look: what shrinks towards an aim would never reach it."""


@dataclass(frozen=True)
class NormalTestBetting(AimedBetting):
    """The one-sided z-test of a known number of units, made sequential (Koning and van Meer, 2501.03982), as bets on a mean in [0, 1].

    Given the units so far, the z-test at `level` rejects at the last unit with a conditional probability q under R = alpha. The capital
    q / level is a martingale that ends at 1 / level exactly where the test rejects, which no other test of that level beats
    for normal losses. It is won with bets phi(z) / (q sqrt((n - t + 1) V)), z = Phi^-1(q). For losses in [0, 1] such bets keep Ville's
    inequality, whatever the distribution; with q = level K_{t-1} and x = ln(1 / q) + .02 they are here, nearly (`SHRINKAGE`) and without Phi,

        v_t = min(.9 / (1 - a), sqrt(2 / ((n - t + 1) V_{t-1})) x / (sqrt(x) + .35)).

    That approximation, the cap and the running variance V are ours.

    >>> losses = np.array([3 * (32 * [0] + [1000])])
    >>> NormalTestBetting().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0316]
    >>> NormalTestBetting().upper(losses, delta=0.1).tolist()
    [0.064]
    """

    theorem: ClassVar[str] = "Koning and van Meer 2501.03982; Waudby-Smith and Ramdas 2010.09686"

    @staticmethod
    def unscaled_bets(left: FloatArray) -> FloatArray:
        """(m,) x / (sqrt(x) + .35), x = left + .02."""
        beyond = left + OVERSHOOT
        return np.asarray(beyond / (np.sqrt(beyond) + SHRINKAGE))
