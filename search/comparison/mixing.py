"""Mixes of unlearned models with the base model, until they keep the same."""

from froc.data.task import RISKS, UTILITY
from froc.measuring.measure import losses, measured
from froc.models.base import read_weights, write_weights
from froc.models.trainable import Weights
from froc.search.comparison.terms import Entry, Point
from froc.search.run_folder import Folder
from froc.search.trial.bench import Bench
from froc.search.trial.outcome import Asked

HALVINGS = 10
"""Steps of the bisection: the share is known to a thousandth."""


GRID = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares at which every configuration is looked at for the fronts."""


class Mixes:
    """One entry at any share, measured on search queries; each share once."""

    def __init__(self, entry: Entry, bench: Bench, weights: Weights) -> None:
        self._entry, self._bench, self._weights = entry, bench, weights
        self._probes = {probe.risk: probe for probe in bench.probes}
        base = self._probes[UTILITY].base
        self._whole = 1.0 if base is None else float(base.mean())
        self._known: dict[float, Point] = {}

    def at(self, share: float) -> Point:
        """Both risks at a share."""
        if share not in self._known:
            kept = self._kept(share)
            found = measured(self._bench.base, list(self._probes.values()))
            means = {risk: round(float(found[risk].mean()) / 1000, 6) for risk in RISKS}
            self._known[share] = Point(self._entry.name, self._entry.method, share, means, kept)
        return self._known[share]

    def keeping(self, wanted: float) -> Point:
        """The largest share with that much retained performance: 1 where the model as trained keeps it, else by bisection.

        Mean loss grows with the share (UWC, figure 3), so halving finds it; what is returned has kept it in any case.
        """
        if self._kept(1.0) >= wanted:
            return self.at(1.0)
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._kept(middle) >= wanted else (low, middle)
        return self.at(low)

    def _kept(self, share: float) -> float:
        self._bench.base.scope.put(self._weights, share)
        lost = float(losses(self._bench.base, self._probes[UTILITY]).mean()) / 1000
        return 1.0 - lost / self._whole if self._whole else 1.0


def _weights(entry: Entry, bench: Bench, folder: Folder) -> Weights:
    """The entry's parameters; trained again with its seed where this comparison has not done so yet."""
    path = folder.weights(entry.name.replace("/", "_"))
    if not path.is_file():
        line = entry.line
        bench.retrain(Asked(line.method, line.params, line.seed), entry.stop)
        write_weights(bench.base.scope.take(), path)
    return read_weights(path)
