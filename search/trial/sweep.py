"""What one training run offers beside its end: each stop on the way, mixed with the base model by each share.

Neither needs a step of training. A few search queries say where along a mix it is worth looking; the best are then
measured on all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from froc.data.task import UTILITY
from froc.measuring.measure import Measured, Probe, judged, look
from froc.measuring.metric import Observed
from froc.models.base import Base
from froc.models.trainable import Weights

CHEAP = 48
"""Queries per risk that are measured first."""
FURTHEST = 1.5
"""Largest share: mixing beyond 1 goes on in training's direction."""
NEAR = 2.0
"""Times its budget that a risk may be on the first queries for all queries to be measured."""
WRITING = 12.0
"""What generating an answer costs in teacher-forced passes over it."""


@dataclass(frozen=True)
class Effort:
    """looks: shares tried per stop. kept: configurations beside the end that are measured on all queries."""

    looks: int
    kept: int

    @classmethod
    def of(cls, probes: Sequence[Probe], trained_rows: int) -> "Effort":
        """As much as half of what training costs allows; measured in rows passed forward, three per row trained."""
        price = {p.risk: WRITING if "written" in p.sights else 1.0 for p in probes}
        first = sum(price[p.risk] * len(first_of(p)) for p in probes)
        every = sum(price[p.risk] * len(p.rows) for p in probes)
        half = 3 * trained_rows / 4
        return cls(looks=int(np.clip(half / 3 / first, 1, 4)), kept=int(np.clip(half / every, 0, 6)))


NOTHING = Effort(1, 0)
"""No sweep: stops are looked at as they are, for the pruner alone."""


@dataclass(frozen=True)
class Point:
    """A stop and a share, with what the first queries showed. ratio: risk -> mean loss over budget."""

    step: int
    share: float
    seen: Mapping[str, Observed]
    losses: Mapping[str, NDArray[np.int16]]
    ratio: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return max(self.ratio.values())


@dataclass(frozen=True)
class Found:
    """A stop and a share, measured on all search queries."""

    step: int
    share: float
    measured: Mapping[str, Measured]


class Sweep:
    """The sweep of one training run in `base`'s member; the model is left as training left it after every call."""

    def __init__(
        self, base: Base, probes: Sequence[Probe], budget: Mapping[str, float], effort: Effort, member: int = 0
    ) -> None:
        self._base, self._probes, self._budget = base, probes, budget
        self._effort, self._member = effort, member
        self._points: list[Point] = []
        self.kept: dict[int, Weights] = {}

    def stop(self, step: int) -> Point:
        """Look at the first queries here, at several shares; return the best point. Keeps the weights to come back."""
        self._base.scope.activate([self._member])
        # a stop that is looked at once can be among the best, too, and must be found again when training has gone on
        if self._effort != NOTHING:
            self.kept[step] = self._base.scope.take(self._member)
        best = self._explore(step)
        self._back(step, self._points[-1].share)
        return best

    def again(self, kept: Mapping[int, Weights]) -> None:
        """Look once more at the stops that an earlier process looked at; leaves the model at the last of them."""
        self._base.scope.activate([self._member])
        for step in sorted(kept):
            self.kept[step] = kept[step]
            self._explore(step)
            self._back(step, self._points[-1].share)

    def end(self, step: int) -> list[Found]:
        """The end as it is, then the best other points, each measured on all search queries."""
        self.stop(step)
        plain = next(point for point in self._points if point.step == step and point.share == 1.0)
        others = sorted((p for p in self._points if p is not plain and p.worst <= NEAR), key=lambda p: p.worst)
        chosen = others[: self._effort.kept]
        found = [self._whole(point) for point in (plain, *chosen)]
        self._back(step, 0.0 if chosen else 1.0)
        return found

    def _explore(self, step: int) -> Point:
        """Bisect along the mix: forgetting falls and utility loss grows, so the best lies where they meet."""
        low, high, share = 0.0, FURTHEST, 1.0
        tried: list[Point] = []
        for _ in range(self._effort.looks):
            tried.append(self._look(step, share))
            forgetting, utility = _sides(tried[-1].ratio)
            if max(forgetting, utility) == 0 or (share == 1.0 and forgetting > NEAR):
                break
            low, high = (share, high) if forgetting > utility else (low, share)
            share = (low + high) / 2
        self._points += tried
        return min(tried, key=lambda point: point.worst)

    def _look(self, step: int, share: float) -> Point:
        self._put(step, share)
        seen = {p.risk: look(self._base, p, first_of(p)) for p in self._probes}
        losses = {p.risk: judged(p, seen[p.risk], first_of(p)).losses for p in self._probes}
        ratio = {risk: float(some.mean()) / 1000 / self._budget[risk] for risk, some in losses.items()}
        return Point(step, share, seen, losses, ratio)

    def _whole(self, point: Point) -> Found:
        self._put(point.step, point.share)
        measured = {}
        for probe in self._probes:
            seen, rest = point.seen[probe.risk], range(len(first_of(probe)), len(probe.rows))
            measured[probe.risk] = judged(probe, seen.and_then(look(self._base, probe, rest)) if rest else seen)
        return Found(point.step, point.share, measured)

    def _put(self, step: int, share: float) -> None:
        # without a sweep nothing is kept: the model is at the only point there is
        if step in self.kept:
            self._base.scope.put(self.kept[step], share, self._member)

    def _back(self, step: int, share: float) -> None:
        if share != 1.0:
            self._put(step, 1.0)


def first_of(probe: Probe) -> range:
    """The first queries; they stand in keyed-hash order, so they are a random sample."""
    return range(min(CHEAP, len(probe.rows)))


def _sides(ratio: Mapping[str, float]) -> tuple[float, float]:
    """(what falls, what grows) as the share of the unlearned model grows."""
    falls = max((value for risk, value in ratio.items() if risk != UTILITY), default=0.0)
    return falls, ratio.get(UTILITY, 0.0)
