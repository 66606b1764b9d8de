"""How many queries STaR bets save (2505.22422), at what error, in what time; against the bets of 2010.09686 and what no bet can beat.

    python benchmarks/star_bets.py [--quick]

Queries: the smallest number with which the first of ten weighted candidates passes with probability .9, by bisection over
simulated calibrations. Before: bets aim at the level of equal shares; now: at the candidate's own. The floor is ln(1 / level) over the
largest growth per query of any bets on that distribution of losses, in expectation and with the distribution known.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from froc.bounds._aimed_betting import STAKE, AimedBetting
from froc.bounds.betting import Betting
from froc.bounds.star_betting import StarBetting
from froc.loss_table import SCALE

ALPHA, DELTA, CANDIDATES, POWER = 0.1, 0.1, 10, 0.9
OWN = DELTA / float((1 / np.arange(1, CANDIDATES + 1)).sum())
Array = np.ndarray[Any, np.dtype[Any]]
Law = Callable[[np.random.Generator, float, tuple[int, ...]], Array]


def binary(rng: np.random.Generator, risk: float, shape: tuple[int, ...]) -> Array:
    """0 or 1."""
    return (rng.random(shape) < risk).astype(float)


def extraction(rng: np.random.Generator, risk: float, shape: tuple[int, ...]) -> Array:
    """Mostly 0, else uniform, as extraction strength."""
    return (rng.random(shape) < 2 * risk) * rng.random(shape)


def rouge(rng: np.random.Generator, risk: float, shape: tuple[int, ...]) -> Array:
    """Spread around its mean."""
    return rng.beta(6 * risk, 6 * (1 - risk), shape)


def nearly_binary(rng: np.random.Generator, risk: float, shape: tuple[int, ...]) -> Array:
    """Near 0, or .9 and a little more."""
    return (rng.random(shape) < (risk - 0.01) / 0.9) * 0.9 + 0.02 * rng.random(shape)


def flat(rng: np.random.Generator, risk: float, shape: tuple[int, ...]) -> Array:
    """Uniform up to twice the mean."""
    return 2 * risk * rng.random(shape)


LAWS: dict[str, Law] = {
    "0-1": binary,
    "extraction-like": extraction,
    "ROUGE-like": rouge,
    "near 0-1": nearly_binary,
    "flat": flat,
}
HARD = ("0-1", "extraction-like", "ROUGE-like", "near 0-1")


def drawn(law: str, risk: float, repeats: int, units: int, seed: int = 0) -> Array:
    """(repeats, units) whole thousandths, rounded up."""
    rng = np.random.default_rng((seed, units))
    return np.ceil(np.clip(LAWS[law](rng, risk, (repeats, units)), 0, 1) * SCALE - 1e-9).astype(np.int16)


def needed(bound: Betting | AimedBetting, level: float, law: str, risk: float, repeats: int) -> int:
    """Smallest number of queries found by bisection with which p <= level with probability POWER."""
    low, high = 20, 6000
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        enough = (bound.p_value(drawn(law, risk, repeats, middle), ALPHA) <= level).mean() >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def floor(law: str, risk: float, level: float) -> float:
    """ln(1 / level) over the largest expected growth: no bets that know the distribution need fewer in the mean."""
    losses = drawn(law, risk, 1, 400_000, seed=1)[0] / SCALE
    growth = minimize_scalar(
        lambda bet: -float(np.log1p(-bet * (losses - ALPHA)).mean()),
        bounds=(0, 1 / (1 - ALPHA) - 1e-9),
        method="bounded",
    )
    return math.log(1 / level) / -float(growth.fun)


def queries(repeats: int, risks: tuple[float, ...], laws: tuple[str, ...], counts: tuple[int, ...]) -> list[float]:
    """Ratios of queries, printed as a table."""
    print(f"{'law':<17}{'risk':>6}{'of':>4}{'before':>9}{'now':>7}{'ratio':>8}{'floor of the mean':>20}")
    ratios = []
    for law in laws:
        for risk in risks:
            for count in counts:
                own = DELTA / float((1 / np.arange(1, count + 1)).sum())
                before = needed(Betting(level=DELTA / count), own, law, risk, repeats)
                now = needed(StarBetting(level=own), own, law, risk, repeats)
                ratios.append(now / before)
                print(
                    f"{law:<17}{risk:>6}{count:>4}{before:>9}{now:>7}{now / before:>8.2f}{floor(law, risk, own):>20.0f}",
                    flush=True,
                )
    return ratios


def errors(repeats: int) -> float:
    """Largest rate of rejections at risk alpha itself over laws and numbers of units, in standard errors above the level."""
    worst = -math.inf
    for law in LAWS:
        for units in (60, 480):
            rate = float((StarBetting(level=OWN).p_value(drawn(law, ALPHA, repeats, units, 2), ALPHA) <= OWN).mean())
            worst = max(worst, (rate - OWN) / math.sqrt(OWN * (1 - OWN) / repeats))
            print(f"error of {law} with {units} units: {rate:.4f} at level {OWN:.4f}")
    return worst


def clock(work: Callable[[], Any], repeats: int = 3) -> float:
    """Smallest CPU seconds."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


def main() -> None:
    """Print tables and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    main_ratios = queries(200 if quick else 2000, (0.05, 0.065), HARD, (CANDIDATES,))
    risks = (0.02, 0.05) if quick else (0.01, 0.02, 0.035, 0.05, 0.065, 0.075)
    grid = queries(150 if quick else 1000, risks, tuple(LAWS), (CANDIDATES, 1))
    worst = errors(2000 if quick else 100_000)
    table = drawn("extraction-like", 0.05, 200 if quick else 1000, 500)
    p = clock(lambda: StarBetting().p_value(table, ALPHA)) / clock(lambda: Betting().p_value(table, ALPHA))
    upper = clock(lambda: StarBetting().upper(table, 0.01), 1) / clock(lambda: Betting().upper(table, 0.01), 1)
    print(
        json.dumps(
            {
                "stake": STAKE,
                "largest of eight ratios": {
                    "value": round(max(main_ratios), 3),
                    "goal": "<= 0.8",
                    "holds": max(main_ratios) <= 0.8,
                },
                "median of eight ratios": {
                    "value": round(float(np.median(main_ratios)), 3),
                    "goal": "<= 0.8",
                    "holds": bool(np.median(main_ratios) <= 0.8),
                },
                "largest ratio of the grid": {
                    "value": round(max(grid), 3),
                    "goal": "<= 1.02",
                    "holds": max(grid) <= 1.02,
                },
                "error above its level, standard errors": {
                    "value": round(worst, 2),
                    "goal": "<= 3",
                    "holds": worst <= 3,
                },
                "p-values, times before": {"value": round(p, 2), "goal": "<= 3", "holds": p <= 3},
                "upper bounds, times before": {"value": round(upper, 2), "goal": "<= 3", "holds": upper <= 3},
            }
        )
    )


if __name__ == "__main__":
    main()
