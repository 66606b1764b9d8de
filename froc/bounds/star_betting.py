"""Bets by the root of what is left to be won: STaR bets."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from froc.bounds import FloatArray
from froc.bounds._aimed_betting import AimedBetting


@dataclass(frozen=True)
class StarBetting(AimedBetting):
    """STaR bets (2505.22422): v_t = min(.9 / (1 - a), sqrt(2 ln(1 / (level K_{t-1})) / ((n - t + 1) V_{t-1}))).

    Behind its aim the gambler bets more, near it less. The paper caps bets at 1 / (1 - a), where one loss of 1 takes everything.

    >>> losses = np.array([3 * (32 * [0] + [1000])])
    >>> StarBetting().p_value(losses, alpha=0.1).round(4).tolist()
    [0.0317]
    >>> StarBetting().upper(losses, delta=0.1).tolist()
    [0.07]
    """

    theorem: ClassVar[str] = "Voracek and Orabona 2505.22422; Waudby-Smith and Ramdas 2010.09686"

    @staticmethod
    def unscaled_bets(left: FloatArray) -> FloatArray:
        """(m,) sqrt(left)."""
        return np.asarray(np.sqrt(left))
