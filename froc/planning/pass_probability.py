"""How likely the first candidate is to pass if its losses have an assumed distribution. Torch-free.

Computed with the certificate's own p-values: exactly where losses are 0 or 1 and the order of units does not matter, else by
seeded simulation, with a standard error.
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
from froc.risk.claim import Claim, Evidence, evidence_from_matrix
from froc.risk.p_values import p_values
from froc.risk.requirements import MAX_UNITS, first_level, smallest_integer

DRAWS = 2000
"""Calibrations that are simulated for one number of units."""
BLOCK_DRAWS = 250
"""Simulated at a time, each block with its own seed, so that more units continue the same calibrations."""
MAX_SIMULATED_LOSSES = 8_000_000
"""Losses drawn for one number of units; for very many units, fewer calibrations are simulated."""
MAX_SIMULATED_UNITS = 20_000
"""Largest number of units that is simulated."""
LOOK_BACK = 20
"""How far below the result of a bisection smaller results are tried, as probabilities need not rise strictly."""


Places = NDArray[np.int64]


@dataclass(frozen=True)
class Chance:
    """A probability and its Monte Carlo standard error, which is 0 where it is exact."""

    value: float
    error: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.3f}" if self.error == 0 else f"{self.value:.3f} ± {self.error:.3f}"


def fraction_passed(passed: int, of: int) -> Chance:
    """The fraction of simulated calibrations that passed; its error is above 0 even where none or all did."""
    middle = (passed + 1) / (of + 2)
    return Chance(passed / of, math.sqrt(middle * (1.0 - middle) / of))


def joint_probability(chances: list[Chance]) -> tuple[Chance, float]:
    """Joint probability under independence, and its Bonferroni lower bound."""
    value = math.prod(chance.value for chance in chances)
    parts = [chance.error * math.prod(o.value for o in chances if o is not chance) for chance in chances]
    return Chance(value, math.hypot(*parts)), max(0.0, 1.0 - sum(1.0 - chance.value for chance in chances))


def simulate_calibration(draw: np.random.Generator, known: int, units: int, times: int) -> tuple[Places, Places]:
    """Simulated calibrations from measured search units: a bootstrap of the population, and a sample of it.

    Returns (times, known + 1) indices of measured units, where index `known` stands for one more unit with a loss of 1, so
    that few units without a loss do not count as certainty; and (times, units) indices into those.
    """
    return draw.choice(known + 1, (times, known + 1)), draw.integers(known + 1, size=(times, units))


@dataclass(frozen=True)
class FirstCandidate:
    """The first of `candidates` (weights 1 / rank) under one risk of a claim, when no other candidate passes.

    searched: units of a listed population that the search measures.
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
        """Whether the p-value depends only on how many losses are 1."""
        return binary(law) and self._free and not self.searched

    def allowed(self, units: int) -> int:
        """Largest number of losses equal to 1 among `units`, the rest 0, with which it passes; -1 where it does not pass at 0."""
        return first_integer(lambda lost: self._p(lost, units) > self.share, -1, units + 1) - 1

    def useful(self, lost: int) -> int | None:
        """Smallest number of units with which it passes with `lost` losses of 1; None above a million."""
        return smallest_integer(lambda units: self._p(lost, units) <= self.share, max(1, lost), self.most(MAX_UNITS))

    def chance(self, law: Law, units: int) -> Chance:
        """The probability that it passes with `units`."""
        if self.counts(law):
            return Chance(self._at_most(self.allowed(units), units, law))
        blocks = max(2, min(DRAWS, MAX_SIMULATED_LOSSES // units) // BLOCK_DRAWS)
        passed = 0
        for number in range(blocks):
            draw = np.random.default_rng(hashing.derive_seed("plan", self.seed, self.risk, number))
            evidence = {self.risk: self._simulate_losses(law, units, draw)}
            p = p_values(self.claim, self.risk, evidence, self.candidates, own=self.share)
            passed += int((np.array(p) <= self.share).sum())
        return fraction_passed(passed, blocks * BLOCK_DRAWS)

    def units(self, law: Law, wanted: float, least: int) -> int | None:
        """Smallest number of units, from `least` on, with which it passes with probability `wanted`; near it where simulated.

        None where no number suffices, or where it is above a million, above 20,000 simulated, or above the list's size.
        """
        if mean(law) >= shift.shrunk(self.claim.budget[self.risk], self.claim.radius):
            return None
        if self.counts(law):
            return self._useful_units(law, wanted)
        return smallest_integer(
            lambda units: self.chance(law, units).value >= wanted, least, self.most(MAX_SIMULATED_UNITS)
        )

    def _useful_units(self, law: Law, wanted: float) -> int | None:
        """The same, among the numbers at which one more loss is allowed: between them the probability falls."""

        def enough(lost: int) -> bool:
            units = self.useful(lost)
            return units is None or self._at_most(lost, units, law) >= wanted

        lost_enough = 0 if enough(0) else smallest_integer(enough, 1)
        if lost_enough is None:
            return None
        first = next(lost for lost in range(max(0, lost_enough - LOOK_BACK), lost_enough + 1) if enough(lost))
        return self.useful(first)

    def most(self, wanted: int) -> int:
        """`wanted` units, or the remaining ones of a list where those are fewer."""
        listed = self.claim.kind(self.risk) == "sample"
        return min(wanted, self.claim.listed[self.risk] - self.searched) if listed else wanted

    def _at_most(self, lost: int, units: int, law: Law) -> float:
        """The probability of at most `lost` losses of 1."""
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
        return p_values(
            self.claim, self.risk, {self.risk: evidence_from_matrix(losses)}, self.candidates, own=self.share
        )[0]

    def _simulate_losses(self, law: Law, units: int, draw: np.random.Generator) -> Evidence:
        if self.claim.kind(self.risk) != "sample":
            return evidence_from_matrix(draws(law, draw.random((units, BLOCK_DRAWS)).T))
        everything = listed_losses(law, self.claim.listed[self.risk])
        mixed: Losses = everything[draw.random((BLOCK_DRAWS, len(everything))).argsort(axis=1)]
        seen, rest = mixed[:, : self.searched], mixed[:, self.searched :]
        return Evidence(rest[:, :units], seen.sum(axis=1, dtype=np.int64), self.searched, units)
