"""Error rates that no exact computation covers, at the budget itself: seeded simulations of the code that certifies.

    python benchmarks/error_rates.py [--quick] [--only order-free,sequences,compared,monitor,monotone]

order-free: bounds that read no order, on losses that are not 0 or 1. sequences: fixed sequences with several starts, some candidates
within budget and some at it. compared: all intervals of `froc compare` at once, methods that lose the same queries. monitor: a state
file with one byte changed. monotone: by how much a p-value may rise when a query without a loss is added.
"""

import argparse
import json
import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from aimed_bets import LAWS, Array, drawn
from scipy.special import ndtri

from froc import procedures
from froc.bounds import Bound
from froc.comparison.document import difference, interval
from froc.errors import FrocError
from froc.loss_table import SCALE, check
from froc.monitoring.monitor import monitor
from froc.plugins import make
from froc.risk.certificate import certify
from froc.risk.claim import Candidate, Claim

ALPHA, DELTA = 0.1, 0.1
ORDER_FREE = ("betting_over_orders", "mixture", "hoeffding_bentkus", "hoeffding_kl", "bentkus", "empirical_bernstein")
MANY_LAWS = ("extraction-like", "ROUGE-like", "near 0-1", "flat")


def allowed(level: float, repeats: int) -> float:
    """The level and three standard errors of a rate at it."""
    return level + 3 * math.sqrt(level * (1 - level) / repeats)


def order_free(quick: bool) -> dict[str, Any]:
    """Rejections of risks that are the budget, and upper bounds below the mean."""
    repeats, sizes = (300, (50,)) if quick else (4000, (50, 400))
    worst = 0.0
    print(f"{'order-free':<22}{'law':<17}{'n':>5}{'p <= .1':>10}{'bound < risk':>14}")
    for name in ORDER_FREE:
        for law in MANY_LAWS:
            for n in sizes:
                few = repeats if name != "betting_over_orders" else repeats // 10
                losses = drawn(law, ALPHA, few, n, seed=5)
                bound = make(Bound, name)
                rejected = float((bound.p_value(losses, ALPHA) <= DELTA).mean())
                missed = float((bound.upper(losses[: few // 4], DELTA) < ALPHA).mean())
                worst = max(worst, rejected - allowed(DELTA, few), missed - allowed(DELTA, few // 4))
                print(f"{name:<22}{law:<17}{n:>5}{rejected:>10.4f}{missed:>14.4f}", flush=True)
    return {"value": round(worst, 4), "goal": "no rate above .1 and three standard errors", "holds": worst <= 0}


def correlated(rng: np.random.Generator, risks: Array, n: int) -> Array:
    """(m, n) 0-1 losses of correlation .7, in thousandths."""
    normal = math.sqrt(0.7) * rng.standard_normal(n) + math.sqrt(0.3) * rng.standard_normal((len(risks), n))
    return np.asarray((normal < ndtri(risks)[:, None]).astype(np.int16) * SCALE)


def sequences(quick: bool) -> dict[str, Any]:
    """Searches in which a fixed sequence certifies a candidate at the budget."""
    repeats, worst = 300 if quick else 5000, 0.0
    risks = np.array([0.04, 0.1, 0.03, 0.1, 0.05, 0.1, 0.1, 0.02, 0.1, 0.1])
    for name in ("fixed-sequence", "fixed-sequence:starts=2", "fixed-sequence:starts=5", "fixed-sequence:starts=10"):
        rng, wrong = np.random.default_rng(9), 0
        for _ in range(repeats):
            p = make(Bound, "binomial").p_value(correlated(rng, risks, 150), ALPHA)
            flags = procedures.certified(name, p, np.ones(len(risks)), DELTA)
            wrong += bool(flags[risks >= ALPHA].any())
        worst = max(worst, wrong / repeats)
        print(f"{name:<26}{wrong / repeats:>8.4f}", flush=True)
    return {
        "value": round(worst, 4),
        "goal": "<= .1 and three standard errors",
        "holds": worst <= allowed(DELTA, repeats),
    }


def compared(quick: bool) -> dict[str, Any]:
    """Comparisons in which any interval of five methods' risks, or of their ten differences, misses what it is about."""
    repeats, n, m = 60 if quick else 2000, 200, 5
    risks = np.array([0.05, 0.1, 0.1, 0.2, 0.3])
    rng, alone, pairs = np.random.default_rng(3), 0, 0
    for _ in range(repeats):
        losses = correlated(rng, risks, n)
        low, high = interval(losses / SCALE, DELTA / m)
        alone += bool(((low > risks) | (high < risks)).any())
        first, second = np.triu_indices(m, 1)
        low, high = difference(losses[first], losses[second], DELTA / len(first))
        apart = risks[first] - risks[second]
        pairs += bool(((low > apart) | (high < apart)).any())
    print(f"compared: any of five risks missed {alone / repeats:.4f}, any of ten differences {pairs / repeats:.4f}")
    worst = max(alone, pairs) / repeats
    return {
        "value": round(worst, 4),
        "goal": "<= .1 and three standard errors",
        "holds": worst <= allowed(DELTA, repeats),
    }


def monitored(folder: Path, losses: Array, number: int) -> dict[str, Any]:
    """The document after further losses of a stream whose state is in the folder."""
    rows = {"config": "c", "risk": "r", "query": [f"{number}-{i}" for i in range(len(losses))], "loss": losses / SCALE}
    return monitor(check(pl.DataFrame(rows)), certificate=certificate(), state=folder / "state.json").document()


@cache
def certificate() -> dict[str, Any]:
    """Of a configuration that lost nothing on 100 queries."""
    lossless = check(pl.DataFrame({"config": "c", "risk": "r", "query": [f"q{i}" for i in range(100)], "loss": 0.0}))
    return certify(lossless, [Candidate("c", "", {}, 1.0)], Claim({"r": ALPHA}, {"r": "betting"}, {"r": "query"}))


def tampered(quick: bool) -> dict[str, Any]:
    """State files with one byte changed that are taken, and whose course then says something else than its own counts."""
    repeats, rng = 150 if quick else 3000, np.random.default_rng(17)
    refused = same = other = 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        losses = drawn("extraction-like", 0.12, 1, 300, seed=6)[0]
        monitored(folder, losses, 0)
        whole = (folder / "state.json").read_bytes()
        expected = monitored(folder, losses[:20], 1)
        for _ in range(repeats):
            data = bytearray(whole)
            data[int(rng.integers(len(data)))] = int(rng.choice(list(b"0123456789abcdef.-,{}[]")))
            (folder / "state.json").write_bytes(bytes(data))
            try:
                document = monitored(folder, losses[:20], 1)
            except FrocError:
                refused += 1
                continue
            same += document == expected
            other += document != expected
    print(
        f"monitor: of {repeats} changed bytes {refused} are refused, {same} change nothing that is said, {other} something"
    )
    return {"value": {"refused": refused, "same": same, "other": other}}


def monotone(quick: bool) -> dict[str, Any]:
    """The largest ratio of a p-value with a further loss of 0 to that without it, and how often it is above 1."""
    repeats, worst = 200 if quick else 5000, 1.0
    for name in ("binomial", "betting", "star_betting", "normal_test_betting", "hoeffding_bentkus", "mixture"):
        for law in ("0-1",) if name == "binomial" else LAWS:
            losses = drawn(law, 0.05, repeats, 120, seed=8)
            longer = np.concatenate([losses, np.zeros((repeats, 1), dtype=np.int16)], axis=1)
            bound = make(Bound, name)
            before, after = bound.p_value(losses, ALPHA), bound.p_value(longer, ALPHA)
            ratio = after / before
            worst = max(worst, float(ratio.max()))
            print(f"one more loss of 0: {name:<20}{law:<17} rises in {float((ratio > 1 + 1e-9).mean()):.3f}, at most x {float(ratio.max()):.3f}", flush=True)  # fmt: skip
    return {"value": round(worst, 3)}


PARTS = {
    "order-free": order_free,
    "sequences": sequences,
    "compared": compared,
    "monitor": tampered,
    "monotone": monotone,
}


def main() -> None:
    """Print tables and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    print(json.dumps({name: PARTS[name](arguments.quick) for name in arguments.only.split(",")}))


if __name__ == "__main__":
    main()
