"""Losses of sealed points -> methods compared at equal utility: intervals, differences, fronts. Torch-free.

After UWC (2406.09179), with confidence intervals. A *point* is a configuration mixed with the base model. Points and their roles
were sealed before any calibration loss was computed (`froc.search.comparison.run`), so each of these families holds with
probability at least 1 - delta over the calibration draw, whatever the search did:

* methods: every method's risks at every stage;
* pairs: every difference of two methods' forgetting at every stage, on the same queries;
* fronts: both risks of every point of every front, and with them hypervolumes and the budgets that could be met.

Stages: `before` mixing, and each level of retained performance. Intervals are betting bounds from both sides.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import polars as pl

from froc.bounds import FloatArray, Losses
from froc.bounds.betting import upper_from_losses
from froc.data.task import FORGETTING, RISKS, UTILITY
from froc.loss_table import SCALE, matrix
from froc.risk.claim import Claim, level
from froc.risk.wording import statement

BEFORE = "before"
BASE = "base"
"""The base model, a point that all methods share."""
BUDGETS = (0.02, 0.05, 0.1, 0.15, 0.2)
"""Utility budgets for which the smallest forgetting budget is listed, in addition to the whole staircase."""
Interval = dict[str, float]
"""mean, lower, upper."""


def compare(table: pl.DataFrame, seal: Mapping[str, Any], delta: float, unit: Mapping[str, str]) -> dict[str, Any]:
    """The comparison as a JSON document; the same input gives the same document on any machine.

    table: a checked loss table whose configurations are the seal's points. seal: points, stages and fronts, see
    `froc.search.comparison.run`. delta: error level of each family. unit: risk -> sampling unit.
    """
    names = [point["config"] for point in seal["candidates"]]
    losses = {
        risk: matrix(table, risk=risk, split="calibration", configs=names, unit=unit[risk]).values for risk in RISKS
    }
    place = {name: k for k, name in enumerate(names)}
    points = {point["config"]: point for point in seal["candidates"]}
    stages: dict[str, dict[str, str]] = seal["stages"]
    fronts: dict[str, list[str]] = seal["fronts"]
    methods = _methods(losses, place, points, stages, delta)
    pairs = {
        stage: _pairs(losses[FORGETTING], place, points_of_stage, delta / _families(stages))
        for stage, points_of_stage in stages.items()
    }
    bands = _bands(losses, place, fronts, delta)
    return {
        "format": 1,
        "delta": delta,
        "unit": dict(unit),
        "n": {risk: int(values.shape[1]) for risk, values in losses.items()},
        "base": {risk: _mean(losses[risk][place[BASE]]) for risk in RISKS},
        "stages": methods,
        "pairs": pairs,
        "ranking": {stage: _ranking(methods[stage], pairs[stage]) for stage in stages},
        "fronts": {
            method: [{"point": name, "mix": points[name]["params"]["mix"], **bands[name]} for name in front]
            for method, front in fronts.items()
        },
        "union": _union(fronts, bands),
        "hypervolume": {method: _volume([bands[name] for name in front]) for method, front in fronts.items()},
        "region": {method: _region([bands[name] for name in front]) for method, front in fronts.items()},
    }


def document(
    table: pl.DataFrame, seal: Mapping[str, Any], plan: Mapping[str, Any], opening: int, planned: int
) -> dict[str, Any]:
    """`comparison.json`. opening: number of this opening of the queries, from 1; planned: planned openings."""
    claim = Claim({}, {}, plan["units"], plan["confidence"], openings=planned, opening=opening)
    opening_entry = {"number": opening, "planned": planned, "statement": statement(claim)}
    plan_entries = {name: plan[name] for name in ("task", "model", "metrics", "confidence", "levels", "runs")}
    seal_entries = {name: seal[name] for name in ("monotone", "failed")}
    return compare(table, seal, level(claim), plan["units"]) | plan_entries | seal_entries | {"opening": opening_entry}


def interval(values: FloatArray, error: float) -> tuple[FloatArray, FloatArray]:
    """(m,) lower and (m,) upper bounds on the means of (m, n) values in [0, 1], with error probability `error` per row."""
    return 1.0 - upper_from_losses(1.0 - values, error / 2), upper_from_losses(values, error / 2)


def difference(first: Losses, second: Losses, error: float) -> tuple[FloatArray, FloatArray]:
    """(m,) lower and upper bounds on mean(first) - mean(second), from losses (m, n) of the same units."""
    # differences in [-1, 1] are mapped to [0, 1] for the bound
    half = (first.astype(np.float64) - second + SCALE) / (2 * SCALE)
    low, high = interval(half, error)
    return 2.0 * low - 1.0, 2.0 * high - 1.0


def hypervolume(front: Sequence[tuple[float, float]]) -> float:
    """Area of the unit square that is dominated by points of (forgetting, utility) losses; 1 is best, 0 worst."""
    area, best = 0.0, 1.0
    for (forgetting, utility), (after, _) in pairwise([*sorted(front), (1.0, 1.0)]):
        best = min(best, utility)
        area += (after - forgetting) * (1.0 - best)
    return area


def ordered(stages: Iterable[str]) -> list[str]:
    """Stages in order: before mixing, then levels from the strictest on (JSON objects have no order)."""
    return sorted(stages, key=lambda stage: (stage != BEFORE, 0.0 if stage == BEFORE else -float(stage)))


def sentences(document: Mapping[str, Any], stages: Sequence[str] = ()) -> list[str]:
    """One line per pair and stage, and one per stage before them; stages: all by default."""
    lines = []
    for stage in stages or ordered(document["pairs"]):
        pairs = document["pairs"][stage]
        order = document["ranking"][stage]
        tied = f", not told apart from {', '.join(order['tied'])}" if order["tied"] else ""
        lines.append(f"{_when(stage)}: least is left by {order['methods'][0]}{tied}.")
        lines += [sentence(pair, stage) for pair in pairs]
    return lines


def sentence(pair: Mapping[str, Any], stage: str) -> str:
    """A sentence on one pair's interval."""
    first, second, low, high = pair["one"], pair["other"], pair["lower"], pair["upper"]
    when = _when(stage)
    if pair["verdict"] == "tie":
        return f"{when}: {first} and {second} are a tie; the difference lies between {low:+.3f} and {high:+.3f}."
    less, more = (first, second) if pair["verdict"] == first else (second, first)
    least, most = sorted((abs(low), abs(high)))
    return f"{when}: {less} leaves {least:.3f} to {most:.3f} less of what was to be forgotten than {more}."


def _when(stage: str) -> str:
    return "Before calibration" if stage == BEFORE else f"At {float(stage):.0%} retained performance"


def _methods(
    losses: Mapping[str, Losses], place: Mapping[str, int], points: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, str]], delta: float,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    listed = [
        (stage, method, name) for stage, points_of_stage in stages.items() for method, name in points_of_stage.items()
    ]
    keys = [f"{stage} {method}" for stage, method, _ in listed]
    bands = _intervals(losses, [place[name] for _, _, name in listed], keys, delta)
    by_stage: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for key, (stage, method, name) in zip(keys, listed, strict=True):
        by_stage[stage][method] = {"point": name, "mix": points[name]["params"]["mix"], **bands[key]}
    return by_stage


def _families(stages: Mapping[str, Mapping[str, str]]) -> int:
    """Number of pairs over all stages."""
    return max(1, sum(math.comb(len(points_of_stage), 2) for points_of_stage in stages.values()))


def _pairs(
    losses: Losses, place: Mapping[str, int], points_of_stage: Mapping[str, str], error: float
) -> list[dict[str, Any]]:
    rows = []
    pairs = list(combinations(points_of_stage, 2))
    first_losses, second_losses = (losses[[place[points_of_stage[pair[k]]] for pair in pairs]] for k in (0, 1))
    low, high = difference(first_losses, second_losses, error)
    for k, (first, second) in enumerate(pairs):
        verdict = first if high[k] < 0 else second if low[k] > 0 else "tie"
        mean = round(_mean(first_losses[k]) - _mean(second_losses[k]), 6)
        bounds = _outward(float(low[k]), float(high[k]))
        rows.append({"one": first, "other": second, "mean": mean, **bounds, "verdict": verdict})
    return rows


def _ranking(methods: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Methods by mean forgetting, and those whose difference from the first is not significant."""
    order = sorted(methods, key=lambda method: methods[method][FORGETTING]["mean"])
    ties = [{pair["one"], pair["other"]} for pair in pairs if pair["verdict"] == "tie"]
    return {"methods": order, "tied": [method for method in order[1:] if {order[0], method} in ties]}


def _bands(
    losses: Mapping[str, Losses], place: Mapping[str, int], fronts: Mapping[str, Sequence[str]], delta: float
) -> dict[str, dict[str, Interval]]:
    """Point -> risk -> interval, simultaneous over all points and both risks."""
    names = sorted({name for names_of_front in fronts.values() for name in names_of_front})
    return _intervals(losses, [place[name] for name in names], names, delta)


def _intervals(
    losses: Mapping[str, Losses], places: Sequence[int], names: Sequence[str], delta: float
) -> dict[str, dict[str, Interval]]:
    """Name -> risk -> interval of the rows at `places`; all hold simultaneously at error delta."""
    error = delta / max(1, len(names) * len(RISKS))
    intervals: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for risk in RISKS:
        rows = losses[risk][list(places)]
        low, high = interval(rows / SCALE, error)
        for k, name in enumerate(names):
            intervals[name][risk] = {"mean": _mean(rows[k]), **_outward(float(low[k]), float(high[k]), least=0.0)}
    return intervals


def _union(fronts: Mapping[str, Sequence[str]], bands: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    """Points that are not dominated, in both means, by a point of any method."""
    names = list(dict.fromkeys(name for names_of_front in fronts.values() for name in names_of_front))
    means = np.array([[bands[name][risk]["mean"] for risk in RISKS] for name in names]).reshape(-1, len(RISKS))
    return [name for name, mine in zip(names, means, strict=True) if not _beaten(mine, means)]


def _beaten(mine: FloatArray, others: FloatArray) -> bool:
    return bool(((others <= mine).all(axis=1) & (others < mine).any(axis=1)).any())


def front(means: FloatArray) -> list[int]:
    """Indices of the (m, 2) means that are not dominated."""
    return [k for k, mine in enumerate(means) if not _beaten(mine, means)]


def _volume(points: Sequence[Mapping[str, Interval]]) -> Interval:
    """Hypervolume of a front with bounds: smallest at the upper bounds of the losses, largest at the lower ones."""

    def at(bound: str) -> float:
        return hypervolume([(point[FORGETTING][bound], point[UTILITY][bound]) for point in points])

    return {"mean": round(at("mean"), 6), **_outward(at("upper"), at("lower"), least=0.0)}


def _region(points: Sequence[Mapping[str, Interval]]) -> dict[str, Any]:
    """Smallest forgetting budget that a method's points meet with confidence, by utility budget.

    steps: (utility budget, forgetting budget) where it falls; at: for `BUDGETS`, None where no point meets the utility budget.
    All bounds hold simultaneously, so budgets may be chosen afterwards.
    """
    steps: list[tuple[float, float]] = []
    for utility, forgetting in sorted((point[UTILITY]["upper"], point[FORGETTING]["upper"]) for point in points):
        if not steps or forgetting < steps[-1][1]:
            steps.append((utility, forgetting))
    at = {f"{b:g}": min((f for u, f in steps if u <= b), default=None) for b in BUDGETS}
    return {"steps": [list(step) for step in steps], "at": at}


def _mean(losses: Losses) -> float:
    return round(float(losses.sum(dtype=np.int64)) / (SCALE * losses.size), 6)


def _outward(low: float, high: float, least: float = -1.0) -> Interval:
    """Lower and upper bound with six digits, rounded outward, with a margin for floating-point error."""
    return {
        "lower": max(least, math.floor(low * 1e6 - 1e-3) / 1e6),
        "upper": min(1.0, math.ceil(high * 1e6 + 1e-3) / 1e6),
    }
