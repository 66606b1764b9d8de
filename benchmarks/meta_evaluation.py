"""Which forgetting metric can be trusted? The meta-evaluation of OpenUnlearning (arXiv 2506.12618) on the embedded task.

* Faithfulness: the area under the curve by which a metric tells models that were taught the facts from models that were not.
  All of them are fine-tuned from the retrained model, for more or fewer steps: on the facts, or on one wording of each; or
  on the same questions with other people's answers, on strangers, on what it knows already. The threshold that tells the two
  kinds apart best is what a model must be below to count as unlearned by that metric.
* Robustness of an unlearned model's number: to relearning, R = min(1, (ret_a - ret_b) / (unl_a - unl_b)), one epoch on all
  forget rows, where `ret` is the retrained model; to 4-bit quantisation, Q = min(1, b / a); b before and a after. Means over
  the unlearned models that lost at most a fifth of the retained answers and that the metric calls unlearned.

Robustness is the harmonic mean of R and Q, the overall number that of faithfulness and robustness.

    python benchmarks/meta_evaluation.py [--quick]

`--quick` trains fewer models. One thread; start it with nothing else running.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, product
from statistics import harmonic_mean

import numpy as np
import torch
from metrics import UNLEARNED, Promises, goal, measurable, options
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score, roc_curve

from froc.attacks.quantization import Quantization
from froc.attacks.relearning import Relearning
from froc.data.splits import SearchView, split
from froc.data.task import UTILITY, Row
from froc.data.tasks import embedded_text
from froc.measuring.measurement import measurement, plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import Probe, material, measured, probes
from froc.models.base import Base
from froc.plugins import find
from froc.search.build import cache_folder
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training import embedded

SHARE = 0.2
"""Share of the task's queries that is looked at here."""
BATCH = 32
STEPS = (20, 40, 80, 160, 240)
LEARNING_RATES = (3e-4, 6e-4, 1e-3)
KEPT = 0.2
"""Largest loss of retained answers (extraction strength) of a model that counts as unlearned."""
LOST = "lost"
Numbers = dict[str, float]


@dataclass(frozen=True)
class Place:
    """The task, its base model, what the metrics read of it, and the retrained model's parameters.

    probes: of each metric, and of the loss of retained answers last.
    """

    base: Base
    view: SearchView
    probes: list[Probe]
    retrained: Mapping[str, torch.Tensor]

    @classmethod
    def make(cls) -> "Place":
        """The embedded task, with its model and the one that was never told."""
        folder = embedded.made(cache=cache_folder(), retrained=True)
        base = embedded.base(cache=cache_folder())
        view, _ = split(options(embedded_text.task()), SHARE)
        known = [
            probe for probe in measurable(view, base, {"unlearning_depth": f"reference={folder}"}) if _tells(probe)
        ]
        (lost,) = probes(base, {LOST: view.queries[UTILITY]}, {LOST: measurement("extraction_strength/utility")}, view)
        return cls(base, view, [*known, lost], load_file(folder / "model.safetensors"))

    def numbers(self) -> Numbers:
        """metric -> mean of the model as it stands."""
        return {name: float(losses.mean()) / 1000 for name, losses in measured(self.base, self.probes).items()}

    def train(self, rows: Sequence[Row], steps: int, lr: float, batch: int) -> None:
        """Fine-tune the model as it stands, which stays so."""
        known = replace(material(self.view), known=tuple(rows))
        Relearning(steps=steps, lr=lr, batch=batch).change(self.base.model, self.base.tokenizer, known)

    def fine_tuned(self, rows: Sequence[Row], steps: int, lr: float) -> Numbers:
        """Of the retrained model after it has read these rows, each batch as many again of those it knows."""
        beside = [row for row, _ in zip(cycle(self.view.retain), rows, strict=False)]
        self.base.trainable.load(self.retrained)
        self.train([*rows, *beside], steps, lr, 2 * BATCH)
        return self.numbers()

    def relearnt(self) -> Numbers:
        """Of the model as it stands after one epoch on all forget rows; it is put back."""
        with self.base.trainable.temporarily_merged(self.base.model, change=True):
            self.train(self.view.forget, math.ceil(len(self.view.forget) / BATCH), 0.0, BATCH)
            return self.numbers()

    def quantised(self) -> Numbers:
        """Of the model as it stands in four bits; it is put back."""
        with self.base.trainable.temporarily_merged(self.base.model, change=True) as model:
            Quantization().change(model, self.base.tokenizer, material(self.view))
            return self.numbers()


def _tells(probe: Probe) -> bool:
    """Whether a metric's number is about what the model knows, and not about what it lost or how it writes."""
    metric = probe.measurement.metric
    return metric.finds == "knowledge" and probe.risk != "negative_flips"


def faithfulness(place: Place, quick: bool) -> tuple[dict[str, float], dict[str, float]]:
    """metric -> area under the curve, and the threshold that tells the two kinds of models apart best."""
    forget = place.view.forget
    each = len(forget) // len({row.group for row in forget})
    # rows stand person by person, fact by fact, so the next person's answers are to the same questions
    wrong = [replace(row, answer=forget[(k + each) % len(forget)].answer) for k, row in enumerate(forget)]
    once = [rows[0] for rows in _by_fact(forget)]
    pools = {"facts": forget, "one wording": once, "wrong answers": wrong, "strangers": place.view.holdout,
             "nothing new": place.view.retain[: len(forget)]}  # fmt: skip
    measurements: list[Numbers] = []
    label: list[bool] = []
    for name, rows in pools.items():
        for steps, lr in product(STEPS[::2] if quick else STEPS, LEARNING_RATES[::2] if quick else LEARNING_RATES):
            measurements.append(place.fine_tuned(rows, steps, lr))
            label.append(name in ("facts", "one wording"))
            print(f"  {name:14} {steps:4d} steps, lr {lr:g}: extraction strength {measurements[-1]['extraction_strength']:.3f}, "
                  f"probability {measurements[-1]['probability']:.3f}", flush=True)  # fmt: skip
    areas, thresholds = {}, {}
    for name in measurements[0]:
        values = np.array([numbers[name] for numbers in measurements])
        areas[name] = float(roc_auc_score(label, values))
        false, true, cut = roc_curve(label, values)
        thresholds[name] = float(cut[np.argmax(true - false)])
    print(f"  {sum(label)} models were taught the facts, {len(label) - sum(label)} were not")
    return areas, thresholds


def _by_fact(rows: Sequence[Row]) -> list[list[Row]]:
    by_fact: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_fact.setdefault((row.group, row.answer), []).append(row)
    return list(by_fact.values())


def robustness(place: Place, thresholds: Mapping[str, float], quick: bool) -> dict[str, tuple[float, float, int]]:
    """metric -> mean R, mean Q, and how many unlearned models they are means of."""
    place.base.trainable.load(place.retrained)
    before = place.numbers()
    regained = {name: value - before[name] for name, value in place.relearnt().items()}
    place.base.restore()
    strength = find(Metric, "extraction_strength")()
    bench = TrialRunner(
        place.base, place.view, plain(dict.fromkeys(place.view.queries, strength)), batch=BATCH, seed=0, swept=False
    )
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in before}
    for spec, factor, seed in product(UNLEARNED, (1.0,) if quick else (0.7, 1.0, 1.4), (0,) if quick else (0, 1)):
        bench.retrain(TrialSpec(spec.method, {**spec.params, "lr": spec.params["lr"] * factor}, seed))
        plainly = place.numbers()
        kept = plainly[LOST] <= KEPT
        print(f"  {spec.method:10} lr {spec.params['lr'] * factor:g}: extraction strength "
              f"{plainly['extraction_strength']:.3f}, lost {plainly[LOST]:.3f}{'' if kept else ': too much'}", flush=True)  # fmt: skip
        if not kept:
            continue
        again, rounded = place.relearnt(), place.quantised()
        for name in (name for name, value in plainly.items() if value < thresholds[name]):
            r = _ratio(regained[name], again[name] - plainly[name])
            ratios[name].append((r, _ratio(plainly[name], rounded[name])))
    return {
        name: (
            float(np.mean([r for r, _ in pairs] or [0.0])),
            float(np.mean([q for _, q in pairs] or [0.0])),
            len(pairs),
        )
        for name, pairs in ratios.items()
    }


def _ratio(over: float, under: float) -> float:
    """min(1, over / under), 1 where the attack brought nothing back."""
    return 1.0 if under <= 0 or over >= under else max(0.0, over / under)


def _harmonic(*values: float) -> float:
    return float(harmonic_mean([max(value, 0.0) for value in values]))


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    place = Place.make()
    areas, thresholds = faithfulness(place, arguments.quick)
    robust = robustness(place, thresholds, arguments.quick)
    overall = {name: _harmonic(areas[name], _harmonic(*robust[name][:2])) for name in areas if name != LOST}
    print("\n| metric | overall | faithful | robust | quantised | relearnt | models |\n|---|---|---|---|---|---|---|")
    for name in sorted(overall, key=lambda name: -overall[name]):
        relearnt, quantised, used = robust[name]
        print(f"| {name} | {overall[name]:.3f} | {areas[name]:.3f} | {_harmonic(relearnt, quantised):.3f} "
              f"| {quantised:.3f} | {relearnt:.3f} | {used} |", flush=True)  # fmt: skip
    promises: Promises = {
        "faithfulness": goal(round(areas["extraction_strength"], 3), ">= 0.9", areas["extraction_strength"] >= 0.9)
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
