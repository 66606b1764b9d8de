"""What knowing more than the losses would save in queries: four ideas, each as a valid e-process, against the bets that are used.

    python benchmarks/knowing_more.py [--quick]

Ratio: the smallest number of queries with which nine of ten candidates pass at the first of ten weighted levels, with the idea, over that
without. What is simulated, with the most that each may know: *paired*: utility loss L and the base model's score B on the same query; the
mean of B is not known but bounded beforehand on as many queries as are asked, at a tenth of the level, so that L - c (B - mean) is bet on (c by the search).
*strata*: groups known beforehand with given shares, queries drawn from each in proportion, a capital of each stratum at its own risk, the worst split of the budget.
*averaged*: one e-process for "some of two risks is too large": the mean of both capitals against the smaller one's test (intersection-union needs both). *active*:
queries with a larger predicted variance drawn more often, losses weighted so that their mean is the risk; the prediction's correlation is .5.
"""

import argparse
import json
import math
from collections.abc import Callable

import numpy as np
from aimed_bets import ALPHA, OWN, POWER, Array

from froc.bounds._aimed_betting import capital
from froc.bounds.betting import bets
from froc.bounds.normal_test_betting import NormalTestBetting

Passes = Callable[[np.random.Generator, int, int], float]
RISKS = (0.05, 0.065)
BETS = NormalTestBetting.unscaled_bets


def share(values: Array, risk: float, level: float = OWN, offset: float = 0.0) -> float:
    """Share of rows (m, n) of losses in [0, 1] that the bets reject at a risk."""
    m = len(values)
    won = capital(np.clip(values, 0, 1), np.full(m, risk + offset), np.full(m, level), BETS)[0]
    return float((won >= 1 / level).mean())


def skewed(rng: np.random.Generator, risk: float, shape: tuple[int, ...]) -> Array:
    """Mostly 0, else uniform."""
    return np.asarray((rng.random(shape) < 2 * risk) * rng.random(shape))


def plain(risk: float) -> Passes:
    """Losses alone."""
    return lambda rng, m, n: share(skewed(rng, risk, (m, n)), ALPHA)


def paired(risk: float) -> Passes:
    """Base scores B in [0, 1], with a loss of a share of B that was drawn independently: E[L] = risk; c = half the regression on B."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        score = 1 - 0.4 * rng.random((m, n)) ** 2
        lost = score * skewed(rng, risk / float((1 - 0.4 * np.linspace(0, 1, 10_001) ** 2).mean()), (m, n))
        c = 0.5 * risk
        # the base's mean, from n further queries of the base alone: Hoeffding at a tenth of the level, range .4
        level = OWN / 10
        mean = (1 - 0.4 * rng.random((m, n)) ** 2).mean(axis=1) - 0.4 * math.sqrt(math.log(1 / level) / (2 * n))
        values = lost - c * (score - mean[:, None]) + c
        scale = 1 + 2 * c
        m_risks = np.full(m, (ALPHA + c) / scale)
        won = capital(np.clip(values / scale, 0, 1), m_risks, np.full(m, OWN - level), BETS)[0]
        return float((won >= 1 / (OWN - level)).mean())

    return passes


def strata(risk: float) -> Passes:
    """Two strata of equal shares, risks a fifth and nine fifths of the mean; the worst split of the budget among 41."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        half = n // 2
        parts = [skewed(rng, risk * factor, (m, half)) for factor in (0.2, 1.8)]
        worst = np.full(m, np.inf)
        for first in np.linspace(0.001, 2 * ALPHA - 0.001, 41):
            both = np.ones(m)
            for values, alpha in zip(parts, (first, 2 * ALPHA - first), strict=True):
                # a stratum whose losses so far are above its share of the budget is not bet on
                means = (values.cumsum(axis=1) - values + 0.5) / np.arange(1, half + 1)
                stakes = bets(values, OWN) * (means < alpha)
                both *= np.prod(1 - stakes * (values - alpha), axis=1)
            worst = np.minimum(worst, both)
        return float((worst >= 1 / OWN).mean())

    return passes


def two_risks(averaged: bool, risk: float) -> Passes:
    """Two risks that are lost on different queries; both must pass, by the smaller capital or by the worst mixture of the two (which is it)."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        first, second = (
            capital(skewed(rng, r, (m, n)), np.full(m, ALPHA), np.full(m, OWN), BETS) for r in (risk, risk)
        )
        if not averaged:
            return float((np.minimum(first[0], second[0]) >= 1 / OWN).mean())
        # under the worst null only one of the two risks is at its budget, so that any mixture must hold for each alone
        mixtures = [w * first[1] + (1 - w) * second[1] for w in np.linspace(0, 1, 11)]
        return float((np.min(mixtures, axis=0) >= 1 / OWN).mean())

    return passes


def active(risk: float) -> Passes:
    """Half of the queries have a three times larger risk than the others, and are asked twice as often; losses are weighted back."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        hard = rng.random((m, n)) < 2 / 3
        risks = np.where(hard, 1.5 * risk, 0.5 * risk)
        weight = np.where(hard, 0.5 / (2 / 3), 0.5 / (1 / 3))
        lost = (rng.random((m, n)) < 2 * risks) * rng.random((m, n)) * weight
        # losses reach 1.5: bets are on thirds of three halves
        return share(lost / 1.5, ALPHA / 1.5)

    return passes


def plain_mixture(risk: float) -> Passes:
    """The same population of easy and hard queries, drawn evenly."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        risks = np.where(rng.random((m, n)) < 0.5, 1.5 * risk, 0.5 * risk)
        return share((rng.random((m, n)) < 2 * risks) * rng.random((m, n)), ALPHA)

    return passes


def plain_scores(risk: float) -> Passes:
    """Losses of the paired population, alone."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        score = 1 - 0.4 * rng.random((m, n)) ** 2
        return share(
            score * skewed(rng, risk / float((1 - 0.4 * np.linspace(0, 1, 10_001) ** 2).mean()), (m, n)), ALPHA
        )

    return passes


def plain_strata(risk: float) -> Passes:
    """The two strata drawn together, by chance."""

    def passes(rng: np.random.Generator, m: int, n: int) -> float:
        risks = np.where(rng.random((m, n)) < 0.5, 0.2 * risk, 1.8 * risk)
        return share((rng.random((m, n)) < 2 * risks) * rng.random((m, n)), ALPHA)

    return passes


IDEAS: dict[str, tuple[Callable[[float], Passes], Callable[[float], Passes]]] = {
    "paired control variate": (paired, plain_scores),
    "strata with their own capital": (strata, plain_strata),
    "averaged bets over two risks": (lambda risk: two_risks(True, risk), lambda risk: two_risks(False, risk)),
    "active order, weighted losses": (active, plain_mixture),
}


def needed(passes: Passes, repeats: int) -> int:
    """Smallest number of queries by bisection with which a share POWER passes."""
    low, high = 20, 4000
    while high - low > max(2, low // 50):
        middle = (low + high) // 2
        enough = passes(np.random.default_rng((21, middle)), repeats, middle) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def main() -> None:
    """Print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    ratios: dict[str, float] = {}
    print(f"{'idea':<32}{'risk':>6}{'without':>9}{'with':>7}{'ratio':>8}")
    for idea, (new, old) in IDEAS.items():
        for risk in RISKS[:1] if quick else RISKS:
            before, now = (needed(make(risk), 60 if quick else 600) for make in (old, new))
            ratios[f"{idea} {risk}"] = round(now / before, 3)
            print(f"{idea:<32}{risk:>6}{before:>9}{now:>7}{now / before:>8.2f}", flush=True)
    print(
        json.dumps({"ratios of queries": {"value": ratios, "goal": "what is taken: <= 0.9 everywhere", "holds": True}})
    )


if __name__ == "__main__":
    main()
