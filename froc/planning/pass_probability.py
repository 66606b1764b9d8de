"""How likely the first candidate passes, if its losses follow a law: what plans are made from. Torch-free.

Computed with the certificate's own p-values: exactly where losses are 0 or 1 and their order does not matter, else by
seeded simulation with its standard error.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from froc import hashing
from froc.bounds import Bound, Losses, binomial
from froc.loss_table import SCALE
from froc.planning.loss_distributions import Law, binary, draws, listed_losses, mean
from froc.plugins import find
from froc.risk import shift
from froc.risk.bisection import first_integer
from froc.risk.claim import Claim, Evidence, evidence_from_matrix, p_values
from froc.risk.requirements import MAX_UNITS, first_level, smallest_integer

DRAWS = 2000
"""Calibrations that are imagined for one number of units."""
BLOCK_DRAWS = 250
"""Of them at a time, each block with a seed of its own: more units are the same calibrations, continued."""
MAX_SIMULATED_LOSSES = 8_000_000
"""Losses that are drawn for one number of units; of very many units, fewer calibrations are imagined."""
MAX_SIMULATED_UNITS = 20_000
"""Units up to which it is simulated."""
LOOK_BACK = 20
"""How far below a bisection's answer a smaller one is looked for: chances at useful numbers rise, if not strictly."""


Places = NDArray[np.int64]


@dataclass(frozen=True)
class Chance:
    """A probability and its Monte Carlo standard error, which is 0 where it is exact."""

    value: float
    error: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.3f}" if self.error == 0 else f"{self.value:.3f} ± {self.error:.3f}"


def fraction_passed(passed: int, of: int) -> Chance:
    """A share of imagined calibrations; its error is never 0, as none or all of them is no certainty."""
    middle = (passed + 1) / (of + 2)
    return Chance(passed / of, math.sqrt(middle * (1.0 - middle) / of))


def joint_probability(chances: list[Chance]) -> tuple[Chance, float]:
    """That all happen, if they are independent; and the least it can be, whatever hangs together."""
    value = math.prod(chance.value for chance in chances)
    parts = [chance.error * math.prod(o.value for o in chances if o is not chance) for chance in chances]
    return Chance(value, math.hypot(*parts)), max(0.0, 1.0 - sum(1.0 - chance.value for chance in chances))


def simulate_calibration(draw: np.random.Generator, known: int, units: int, times: int) -> tuple[Places, Places]:
    """Calibrations imagined from what a search measured: two draws with replacement, for what the search does not know
    and for what the calibration draws.

    (times, known + 1) places in the measured units, where place `known` stands for one more unit of the worst loss, so
    that few units without a loss do not pass for certainty; and (times, units) places in those.
    """
    return draw.choice(known + 1, (times, known + 1)), draw.integers(known + 1, size=(times, units))


@dataclass(frozen=True)
class FirstCandidate:
    """The first of `candidates` (weights 1 / rank) under one risk of a claim, when no other candidate passes.

    searched: units of a listed population that the search looks at.
    """

    claim: Claim
    risk: str
    candidates: int
    searched: int = 0
    seed: int = 0

    @cached_property
    def share(self) -> float:
        """The error level at which it is tested."""
        return first_level(self.claim, self.candidates)

    @cached_property
    def _free(self) -> bool:
        return find(Bound, self.claim.bound[self.risk]).order_free

    def counts(self, law: Law) -> bool:
        """Whether all that matters is how many losses are 1."""
        return binary(law) and self._free and not self.searched

    def allowed(self, units: int) -> int:
        """The most losses of 1 among so many units, the rest 0, with which it passes; -1 where none will do."""
        return first_integer(lambda lost: self._p(lost, units) > self.share, -1, units + 1) - 1

    def useful(self, lost: int) -> int | None:
        """The smallest number of units with which it passes with so many losses of 1; None beyond a million."""
        return smallest_integer(lambda units: self._p(lost, units) <= self.share, max(1, lost), self.most(MAX_UNITS))

    def chance(self, law: Law, units: int) -> Chance:
        """That it passes with so many units."""
        if self.counts(law):
            return Chance(self._at_most(self.allowed(units), units, law))
        blocks = max(2, min(DRAWS, MAX_SIMULATED_LOSSES // units) // BLOCK_DRAWS)
        passed = 0
        for number in range(blocks):
            draw = np.random.default_rng(hashing.derive_seed("plan", self.seed, self.risk, number))
            p = p_values(self.claim, self.risk, {self.risk: self._simulate_losses(law, units, draw)}, self.candidates)
            passed += int((np.array(p) <= self.share).sum())
        return fraction_passed(passed, blocks * BLOCK_DRAWS)

    def units(self, law: Law, wanted: float, least: int) -> int | None:
        """The smallest number of units, from `least` on, with which it passes with that chance: near it where simulated.

        None where more units would not do, or where it is more than a million, 20,000 simulated, or than are listed.
        """
        if mean(law) >= shift.shrunk(self.claim.budget[self.risk], self.claim.radius):
            return None
        if self.counts(law):
            return self._useful_units(law, wanted)
        return smallest_integer(
            lambda units: self.chance(law, units).value >= wanted, least, self.most(MAX_SIMULATED_UNITS)
        )

    def _useful_units(self, law: Law, wanted: float) -> int | None:
        """Chances fall between useful numbers of units, so that only those need to be looked at."""

        def enough(lost: int) -> bool:
            units = self.useful(lost)
            return units is None or self._at_most(lost, units, law) >= wanted

        lost_enough = 0 if enough(0) else smallest_integer(enough, 1)
        if lost_enough is None:
            return None
        first = next(lost for lost in range(max(0, lost_enough - LOOK_BACK), lost_enough + 1) if enough(lost))
        return self.useful(first)

    def most(self, wanted: int) -> int:
        """So many units, or those that are left of a list where there are fewer."""
        listed = self.claim.kind(self.risk) == "sample"
        return min(wanted, self.claim.listed[self.risk] - self.searched) if listed else wanted

    def _at_most(self, lost: int, units: int, law: Law) -> float:
        """The chance of so many losses of 1 or fewer."""
        if self.claim.kind(self.risk) != "sample":
            return (
                float(binomial.p_value_from_count(np.array([lost]), units, float(law[SCALE]))[0]) if lost >= 0 else 0.0
            )
        # scipy.stats takes a second to import
        from scipy.stats import hypergeom

        everything = listed_losses(law, self.claim.listed[self.risk])
        return float(hypergeom.cdf(lost, len(everything), int((everything == SCALE).sum()), units))

    def _p(self, lost: int, units: int) -> float:
        losses = np.zeros((1, units), dtype=np.int16)
        losses[0, :lost] = SCALE
        return p_values(self.claim, self.risk, {self.risk: evidence_from_matrix(losses)}, self.candidates)[0]

    def _simulate_losses(self, law: Law, units: int, draw: np.random.Generator) -> Evidence:
        if self.claim.kind(self.risk) != "sample":
            return evidence_from_matrix(draws(law, draw.random((units, BLOCK_DRAWS)).T))
        everything = listed_losses(law, self.claim.listed[self.risk])
        mixed: Losses = everything[draw.random((BLOCK_DRAWS, len(everything))).argsort(axis=1)]
        seen, rest = mixed[:, : self.searched], mixed[:, self.searched :]
        return Evidence(rest[:, :units], seen.sum(axis=1, dtype=np.int64), self.searched, units)
