"""Mixes of unlearned models with the base model that keep equal performance."""

from froc.data.task import RISKS, UTILITY
from froc.measuring.query_losses import losses, measured
from froc.models.base import read_weights, write_weights
from froc.models.trainable import Weights
from froc.search.comparison.terms import ComparedConfig, MixPoint
from froc.search.run_folder import Folder
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner

HALVINGS = 10
"""Steps of the bisection: the mix is found to a thousandth."""


GRID = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Mixes at which every configuration is measured for the fronts."""


class MixedModel:
    """One configuration at any mix, measured on search queries; each mix once."""

    def __init__(self, entry: ComparedConfig, runner: TrialRunner, weights: Weights) -> None:
        self._entry, self._runner, self._weights = entry, runner, weights
        self._probes = {probe.risk: probe for probe in runner.probes}
        base = self._probes[UTILITY].base
        self._whole = 1.0 if base is None else float(base.mean())
        self._known: dict[float, MixPoint] = {}

    def at(self, mix: float) -> MixPoint:
        """Both risks at a mix."""
        if mix not in self._known:
            kept = self._kept(mix)
            losses_by_risk = measured(self._runner.base, list(self._probes.values()))
            means = {risk: round(float(losses_by_risk[risk].mean()) / 1000, 6) for risk in RISKS}
            self._known[mix] = MixPoint(self._entry.name, self._entry.method, mix, means, kept)
        return self._known[mix]

    def keeping(self, wanted: float) -> MixPoint:
        """The largest mix that retains the wanted performance: 1 if the trained model does, else by bisection.

        Mean loss grows with the mix (UWC, figure 3), so bisection finds it; the returned mix was measured to retain
        enough in any case.
        """
        if self._kept(1.0) >= wanted:
            return self.at(1.0)
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._kept(middle) >= wanted else (low, middle)
        return self.at(low)

    def _kept(self, mix: float) -> float:
        self._runner.base.trainable.load(self._weights, mix)
        lost = float(losses(self._runner.base, self._probes[UTILITY]).mean()) / 1000
        return 1.0 - lost / self._whole if self._whole else 1.0


def weights_of(entry: ComparedConfig, runner: TrialRunner, folder: Folder) -> Weights:
    """The configuration's parameters; trained again with its seed unless this comparison has done so."""
    path = folder.weights(entry.name.replace("/", "_"))
    if not path.is_file():
        record = entry.record
        runner.retrain(TrialSpec(record.method, record.params, record.seed), entry.stop)
        write_weights(runner.base.trainable.snapshot(), path)
    return read_weights(path)
