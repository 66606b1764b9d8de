"""Every method, metric and attack on the device, against the CPU."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from froc.data.splits import SearchView, split
from froc.data.task import FORGETTING, Task
from froc.measuring.attack import Attack
from froc.measuring.measurement import Measurement, measurement, plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import measured, probes
from froc.models.base import Base
from froc.models.compute import Engine
from froc.plugins import find, make, names
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.method import Method, wrappers
from tests.attacks.test_attacks import QUICK
from tests.metrics.measurable import VARIANTS, random_judge, rich_view, weaker

METHODS = [
    *(name for name in names(Method) if name not in (*wrappers(), "retrain")),
    *(f"{name}(npo)" for name in wrappers()), "gu(sure(idk))",
]  # fmt: skip
SHORT = {"lr": 1e-3, "epochs": 1, "rounds": 1}


@pytest.fixture(scope="session")
def runners(base: Base, on_cuda: Base, parts: tuple[SearchView, Any]) -> dict[str, TrialRunner]:
    """Device -> what runs trials on it, in float32 alone."""
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "probability")))
    return {
        model.device.type: TrialRunner(model, parts[0], measures, batch=16, seed=0, engine=Engine(), swept=False)
        for model in (base, on_cuda)
    }


ROUNDED = {"ofmu": 3}
"""Thousandths by which losses may differ where a method divides differences of gradients by a small step, which multiplies rounding: the
weights of `ofmu` end 1.2 % of the way apart on one processor where those of others end 0.05 %."""


def _trained(runner: TrialRunner, name: str) -> tuple[Outcome, Mapping[str, Tensor]]:
    fields = {field.name for field in dataclasses.fields(find(Method, name))}
    params = {key: value for key, value in SHORT.items() if key in fields}
    (outcome,) = runner.run([TrialSpec(name, params, 1)], [lambda *_: False])
    return outcome, {key: value.cpu() for key, value in runner.base.trainable.snapshot().items()}


def _length(change: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in change.values()))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_does_on_the_device_what_it_does_on_the_cpu(name: str, runners: dict[str, TrialRunner]) -> None:
    (here, expected), (there, weights) = (_trained(runners[place], name) for place in ("cpu", "cuda"))
    assert (there.status, there.reason, there.steps) == ("complete", None, here.steps)
    before = runners["cpu"].base.trainable.base_values()
    moved = _length({key: value - before[key] for key, value in expected.items()})
    apart = _length({key: value - expected[key] for key, value in weights.items()})
    print(f"{name}: {apart / (moved or 1):.1e} of its way apart")
    assert apart <= 0.02 * moved
    for risk, losses in here.ended[0].tables.items():
        assert np.abs(losses.astype(int) - there.ended[0].tables[risk]).max() <= ROUNDED.get(name, 1)


@pytest.fixture(scope="session")
def half_forgotten(runners: dict[str, TrialRunner]) -> dict[str, Tensor]:
    """Weights between the base model's and forgotten ones: losses are neither 0 nor 1."""
    before = runners["cpu"].base.trainable.base_values()
    return {key: before[key].lerp(value, 0.6) for key, value in _trained(runners["cpu"], "grad_diff")[1].items()}


@pytest.fixture(scope="session")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Metric -> the model that it needs beside the measured one."""
    base.restore()
    judge, reference = (tmp_path_factory.mktemp(name) for name in ("judge", "retrained"))
    return {
        "entailment": {"judge": random_judge(base, judge)},
        "unlearning_depth": {"reference": weaker(base, reference)},
    }


def _compared(losses: Mapping[str, Any]) -> None:
    apart = np.abs(losses["cpu"].astype(int) - losses["cuda"])
    print(f"mean loss {losses['cpu'].mean() / 1000:.3f}, {apart.max()} thousandths apart")
    assert apart.max() <= 1


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_every_metric_measures_on_the_device_what_it_does_on_the_cpu(
    name: str, params: dict[str, Any], runners: dict[str, TrialRunner], parts: tuple[SearchView, Any],
    half_forgotten: dict[str, Tensor], folders: dict[str, dict[str, str]],
) -> None:  # fmt: skip
    view, metric = rich_view(parts[0]), make(Metric, name, params | folders.get(name, {}))
    losses = {}
    for place, runner in runners.items():
        queries = {"risk": view.queries[FORGETTING]}
        (probe,) = probes(runner.base, queries, {"risk": Measurement(FORGETTING, metric)}, view)
        runner.base.trainable.load(half_forgotten)
        losses[place] = measured(runner.base, [probe])["risk"]
    _compared(losses)


@pytest.mark.parametrize("name", names(Attack))
def test_every_attack_measures_on_the_device_what_it_does_on_the_cpu(
    name: str, runners: dict[str, TrialRunner], task: Task, half_forgotten: dict[str, Tensor]
) -> None:
    metric = "rouge_l" if find(Attack, name).shows_in else "probability"
    attacked = measurement(f"{metric}@{name}:{QUICK[name]}" if name in QUICK else f"{metric}@{name}")
    view, _ = split(task, 0.3, sources={"risk": attacked.source})
    losses = {}
    for place, runner in runners.items():
        (probe,) = probes(runner.base, {"risk": view.queries["risk"][:24]}, {"risk": attacked}, view)
        runner.base.trainable.load(half_forgotten)
        losses[place] = measured(runner.base, [probe])["risk"]
    _compared(losses)
