"""Candidates that one training run offers besides its end: each stop on the way, mixed with the base model.

Neither needs training. A few search queries show which mixes are promising; the best are then measured on all.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from froc.data.task import UTILITY
from froc.measuring.metric import Observation
from froc.measuring.query_losses import Measured, Probe, evaluate, observe_probe
from froc.models.base import Base
from froc.models.trainable import Weights

FIRST_QUERIES = 48
"""Queries per risk that are measured first."""
MAX_MIX = 1.5
"""Largest mix; above 1 it extrapolates in training's direction."""
MAX_RATIO = 2.0
"""Largest risk over budget on the first queries at which all queries are measured."""
GENERATION_COST = 12.0
"""Cost of generating an answer, in teacher-forced passes over it."""


@dataclass(frozen=True)
class Effort:
    """How much a sweep measures. looks: mixes tried per stop. kept: further configurations measured on all queries."""

    looks: int
    kept: int

    @classmethod
    def of(cls, probes: Sequence[Probe], trained_rows: int) -> "Effort":
        """As much as half of the training cost allows, in rows passed forward; a trained row counts as three."""
        price = {p.risk: GENERATION_COST if "written" in p.observables else 1.0 for p in probes}
        first = sum(price[p.risk] * len(first_of(p)) for p in probes)
        every = sum(price[p.risk] * len(p.rows) for p in probes)
        half = 3 * trained_rows / 4
        return cls(looks=int(np.clip(half / 3 / first, 1, 4)), kept=int(np.clip(half / every, 0, 6)))


NO_SWEEP = Effort(1, 0)
"""No sweep: stops are measured unmixed, for the pruner only."""


@dataclass(frozen=True)
class SweepPoint:
    """A stop and a mix, measured on the first queries. ratio: risk -> mean loss over budget."""

    step: int
    mix: float
    seen: Mapping[str, Observation]
    losses: Mapping[str, NDArray[np.int16]]
    ratio: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return max(self.ratio.values())


@dataclass(frozen=True)
class MeasuredPoint:
    """A stop and a mix, measured on all search queries."""

    step: int
    mix: float
    measured: Mapping[str, Measured]


class Sweep:
    """The sweep of one training run in `base`'s adapter `adapter_index`; every call leaves the model as training left it.

    known: step -> risk -> observation of the first queries at this step's unmixed weights, where it was made already.
    trained: names of the parameters that training has changed so far; no others are kept and mixed.
    """

    def __init__(
        self, base: Base, probes: Sequence[Probe], budget: Mapping[str, float], effort: Effort, adapter_index: int = 0,
        known: Callable[[int], Mapping[str, Observation]] = lambda _: {},
        trained: Callable[[], Collection[str]] = tuple,
    ) -> None:  # fmt: skip
        self._base, self._probes, self._budget, self._trained = base, probes, budget, trained
        self._effort, self._adapter_index, self._known = effort, adapter_index, known
        self._points: list[SweepPoint] = []
        self._current: tuple[int, float] | None = None
        self.kept: dict[int, Weights] = {}

    def stop(self, step: int) -> SweepPoint:
        """Measure several mixes of this stop on the first queries; returns the best point and keeps the weights."""
        self._base.trainable.activate([self._adapter_index])
        # any measured stop can turn out best, so its weights must be recoverable after further training
        if self._effort != NO_SWEEP:
            self.kept[step] = self._base.trainable.copy(self._trained(), self._adapter_index)
        self._current = step, 1.0
        best = self._explore(step)
        self._back(step, self._points[-1].mix)
        return best

    def again(self, kept: Mapping[int, Weights]) -> None:
        """Measure again the stops that an earlier process measured; leaves the model at the last of them."""
        self._base.trainable.activate([self._adapter_index])
        self._current = None
        for step in sorted(kept):
            self.kept[step] = kept[step]
            self._explore(step)
            self._back(step, self._points[-1].mix)

    def end(self, step: int) -> list[MeasuredPoint]:
        """The unmixed end, then the best other points, each measured on all search queries."""
        self.stop(step)
        plain = next(point for point in self._points if point.step == step and point.mix == 1.0)
        others = sorted((p for p in self._points if p is not plain and p.worst <= MAX_RATIO), key=lambda p: p.worst)
        chosen = others[: self._effort.kept]
        points = [self._whole(point) for point in (plain, *chosen)]
        self._back(step, 0.0 if chosen else 1.0)
        return points

    def _explore(self, step: int) -> SweepPoint:
        """Bisect along the mix: forgetting falls and utility loss grows, so the best lies where they meet."""
        low, high, mix = 0.0, MAX_MIX, 1.0
        tried: list[SweepPoint] = []
        for _ in range(self._effort.looks):
            tried.append(self._look(step, mix))
            forgetting, utility = _sides(tried[-1].ratio)
            if max(forgetting, utility) == 0 or (mix == 1.0 and forgetting > MAX_RATIO):
                break
            low, high = (mix, high) if forgetting > utility else (low, mix)
            mix = (low + high) / 2
        self._points += tried
        return min(tried, key=lambda point: point.worst)

    def _look(self, step: int, mix: float) -> SweepPoint:
        self._put(step, mix)
        known = self._known(step) if mix == 1.0 else {}
        seen = {p.risk: known.get(p.risk) or self._observed(p, first_of(p)) for p in self._probes}
        losses = {p.risk: evaluate(p, seen[p.risk], first_of(p)).losses for p in self._probes}
        ratio = {risk: float(of_risk.mean()) / 1000 / self._budget[risk] for risk, of_risk in losses.items()}
        return SweepPoint(step, mix, seen, losses, ratio)

    def _whole(self, point: SweepPoint) -> MeasuredPoint:
        self._put(point.step, point.mix)
        measured = {}
        for probe in self._probes:
            seen, rest = point.seen[probe.risk], range(len(first_of(probe)), len(probe.rows))
            measured[probe.risk] = evaluate(probe, seen.and_then(self._observed(probe, rest)) if rest else seen)
        return MeasuredPoint(point.step, point.mix, measured)

    def _observed(self, probe: Probe, places: range) -> Observation:
        return observe_probe(
            self._base, probe, places, {*self._trained(), *(name for kept in self.kept.values() for name in kept)}
        )

    def _put(self, step: int, mix: float) -> None:
        # without a sweep nothing is kept: the model already is at the only point
        if step not in self.kept or self._current == (step, mix):
            return
        weights = self.kept[step]
        # parameters of a later phase have the base's values at an earlier stop
        every = set().union(*self.kept.values())
        self._base.trainable.load(weights, mix, self._adapter_index, others_stay=every == set(weights))
        self._current = step, mix

    def _back(self, step: int, mix: float) -> None:
        if mix != 1.0:
            self._put(step, 1.0)


def first_of(probe: Probe) -> range:
    """Indices of the first queries; queries are in keyed-hash order, so these are a random sample."""
    return range(min(FIRST_QUERIES, len(probe.rows)))


def _sides(ratio: Mapping[str, float]) -> tuple[float, float]:
    """(falling, growing) ratio as the mix grows: the largest of all risks but utility, and utility's."""
    falls = max((value for risk, value in ratio.items() if risk != UTILITY), default=0.0)
    return falls, ratio.get(UTILITY, 0.0)
