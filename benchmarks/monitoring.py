"""How often does `froc monitor` raise a false alarm, and how soon a true one?

    python benchmarks/monitoring.py [--quick]

False alarms: streams whose mean loss is the budget exactly, looked at after every loss. Delays: streams whose mean is
above the budget from the first loss on, or after a thousand losses at half the budget. MAPIE's RiskMonitoring, given
the budget for a threshold and the same level for the stream, is run on some of the same 0-1 streams.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from froc.loss_table import SCALE
from froc.monitoring.e_process import follow, initial_capital

BUDGET, LEVEL = 0.1, 0.05
PORTION = 250
"""Streams at a time."""
DRIFTS = (0.02, 0.05, 0.1)
GOOD = 1000
Array = np.ndarray[Any, np.dtype[Any]]
Draw = Callable[[np.random.Generator, Array, int], Array]
"""(streams, n) thousandths with (n,) means."""


def zero_one(rng: np.random.Generator, means: Array, streams: int) -> Array:
    """Losses of 0 or 1."""
    return (rng.random((streams, len(means))) < means).astype(np.int16) * SCALE


def skewed(rng: np.random.Generator, means: Array, streams: int) -> Array:
    """Beta losses of concentration 2, rounded up or down at random so that the mean is exact."""
    losses = rng.beta(2 * means, 2 * (1 - means), (streams, len(means)))
    return np.floor(losses * SCALE + rng.random(losses.shape)).astype(np.int16)


KINDS: dict[str, Draw] = {"0-1": zero_one, "continuous": skewed}


def alarms(draw: Draw, means: Array, streams: int, seed: int) -> Array:
    """(streams,) losses until the alarm, from 1; infinite where there is none."""
    rng, waited = np.random.default_rng(seed), []
    for start in range(0, streams, PORTION):
        losses = draw(rng, means, min(PORTION, streams - start))
        path, _ = follow(losses, BUDGET, initial_capital(len(losses)))
        passed = path >= math.log(1 / LEVEL)
        waited.append(np.where(passed.any(axis=1), passed.argmax(axis=1) + 1.0, np.inf))
    return np.concatenate(waited)


def mapie(losses: Array) -> Array:
    """(streams,) losses until MAPIE's lower bound first exceeds the budget."""
    from mapie.exchangeability_testing import RiskMonitoring
    from mapie.risk_control import BinaryRisk

    def lost(y: Array, p: Array) -> Array:
        return np.asarray(p == 1)

    def counts(y: Array, p: Array) -> Array:
        return np.ones(len(p), dtype=bool)

    waited = []
    for row in losses // SCALE:
        # half of its level is kept for a reference, which there is none of here
        made = RiskMonitoring(
            BinaryRisk(lost, counts, higher_is_better=False), test_level=2 * LEVEL, threshold=BUDGET, warn=False
        )
        made.update(np.zeros(len(row), dtype=int), row.astype(int))
        passed = made.online_risk_lower_bound_sequence_history > BUDGET
        waited.append(passed.argmax() + 1.0 if passed.any() else np.inf)
    return np.array(waited)


def false_alarms(streams: int, n: int) -> dict[str, dict[str, Any]]:
    """Streams at the budget exactly."""
    promises = {}
    print(f"false alarms at level {LEVEL}, mean loss {BUDGET} exactly, {streams} streams of {n} losses")
    for place, (kind, draw) in enumerate(KINDS.items()):
        begin = time.perf_counter()
        rate = float(np.isfinite(alarms(draw, np.full(n, BUDGET), streams, place)).mean())
        each = (time.perf_counter() - begin) / (streams * n)
        print(f"  {kind:11} {rate:.4f}   ({1e6 * each:.2f} microseconds a loss)", flush=True)
        promises[f"false alarms {kind}"] = {"value": rate, "goal": f"<= {LEVEL}", "holds": rate <= LEVEL}
    return promises


def delays(streams: int, n: int) -> dict[str, dict[str, Any]]:
    """Losses after the drift until the alarm."""
    promises = {}
    print(f"\ndetection: losses from the drift to the alarm, {streams} streams, at most {n} losses after it")
    print(f"  {'losses':11} {'before the drift':18} {'drift':>6} {'found':>6} {'median':>7} {'90 %':>7}")
    for kind, draw in KINDS.items():
        for good in (0, GOOD):
            for drift in DRIFTS:
                means = np.concatenate([np.full(good, BUDGET / 2), np.full(n, BUDGET + drift)])
                waited = alarms(draw, means, streams, round(1000 * drift) + good) - good
                # an alarm before the drift is a false one
                waited = waited[waited > 0]
                seen = float(np.isfinite(waited).mean())
                middle, late = np.quantile(waited, [0.5, 0.9], method="higher")
                before = f"{good} at {BUDGET / 2:g}" if good else "nothing"
                print(f"  {kind:11} {before:18} {drift:6} {seen:6.3f} {middle:7.0f} {late:7.0f}", flush=True)
                if drift > DRIFTS[0]:
                    promises[f"{kind}, drift {drift} after {good}"] = {
                        "value": seen,
                        "goal": ">= 0.95",
                        "holds": seen >= 0.95,
                    }
    return promises


def beside(streams: int, n: int) -> None:
    """The same 0-1 streams by MAPIE."""
    print(f"\nbeside MAPIE's RiskMonitoring, 0-1 losses, {streams} streams of {n}: median losses to the alarm")
    for drift in DRIFTS:
        losses = zero_one(np.random.default_rng(round(1000 * drift)), np.full(n, BUDGET + drift), streams)
        begin = time.perf_counter()
        theirs = float(np.quantile(mapie(losses), 0.5, method="higher"))
        took = time.perf_counter() - begin
        path, _ = follow(losses, BUDGET, initial_capital(streams))
        passed = path >= math.log(1 / LEVEL)
        ours = float(
            np.quantile(np.where(passed.any(axis=1), passed.argmax(axis=1) + 1.0, np.inf), 0.5, method="higher")
        )
        each = 1e6 * took / losses.size
        print(f"  drift {drift}: ours {ours:.0f}, MAPIE's {theirs:.0f} ({each:.0f} microseconds a loss)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    promises = false_alarms(300 if quick else 2000, 2000 if quick else 10_000)
    promises |= delays(100 if quick else 500, 4000 if quick else 10_000)
    beside(4 if quick else 40, 2000 if quick else 5000)
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
