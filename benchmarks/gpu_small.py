"""Stages of benchmarks/gpu.py on the small model: every code path against the CPU, waits for the device, bits."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gpu_models import SO_FAR, Sizes
from torch import Tensor

from froc.data.splits import split
from froc.data.tasks import embedded_text
from froc.measuring.attack import Attack
from froc.measuring.measurement import measurement, plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import measured, probes
from froc.models.base import load
from froc.models.compute import Engine
from froc.models.determinism import deterministic
from froc.plugins import find, make, names
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.loop import train_pack, unlearn
from froc.training.method import Method, wrappers
from tests.small_model import SMALL, TRAINED

SHORT = {"lr": 1e-3, "epochs": 1, "rounds": 1}
BRIEF = {
    "relearning": "steps=3", "drift": "steps=3", "benign_finetuning": "steps=3", "soft_prompt": "steps=3", "coordinate_suffix": "steps=2,swaps=4", "latent_perturbation": "steps=3",
}  # fmt: skip
"""Options of attacks that search."""
NEEDY = {
    "entailment", "unlearning_depth", "knn_hit", "multiple_choice", "probability_options", "recommendation_auc", "truth_ratio", "membership",
}  # fmt: skip
"""Metrics that need more than questions and answers."""
AGREE = 0.95
"""Share of queries whose losses differ from the CPU's by at most a thousandth."""


def attacked() -> list[str]:
    """A measurement under each attack, by a metric that reads what it acts on."""
    every = []
    for name in names(Attack):
        metric = "rouge_l" if find(Attack, name).shows_in == {"written"} else "probability"
        every.append(f"{metric}@{name}:{BRIEF[name]}" if name in BRIEF else f"{metric}@{name}")
    return every


def _runner(place: str, autocast: str = "off") -> TrialRunner:
    base = load(str(TRAINED), device=place, dtype="float32")
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "probability")))
    task, _ = split(embedded_text.task(SMALL), 0.2)
    engine = Engine.of(base.model, autocast=autocast)
    return TrialRunner(base, task, measures, batch=16, seed=0, engine=engine, swept=False)


def _spec(name: str) -> TrialSpec:
    fields = {field.name for field in dataclasses.fields(find(Method, name))}
    return TrialSpec(name, {key: value for key, value in SHORT.items() if key in fields}, 1)


def _agreement(first: Any, second: Any) -> float:
    return float((np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)) <= 1).mean())


def code_paths(sizes: Sizes) -> dict[str, Any]:
    """Every method, metric and attack whole, with the CPU's losses."""
    runners = [_runner("cpu"), _runner(sizes.device)]
    listed = [*(name for name in names(Method) if name not in (*wrappers(), "retrain")), *(f"{name}(npo)" for name in wrappers())]  # fmt: skip
    shares: dict[str, float] = {}
    SO_FAR["agreement"] = shares
    for name in listed[: sizes.choice]:
        ends = [runner.run([_spec(name)], [lambda *_: False])[0] for runner in runners]
        if ends[0].status != ends[1].status or not ends[0].ended:
            shares[f"{name}: {ends[1].status}, {ends[1].reason}"] = 0.0
            continue
        shares[name] = min(_agreement(losses, ends[1].ended[0].tables[risk]) for risk, losses in ends[0].ended[0].tables.items())  # fmt: skip
    half = _half_forgotten(runners[0])
    metrics = [name for name in names(Metric) if name not in NEEDY][: sizes.choice]
    for text in (*metrics, *attacked()[: sizes.choice]):
        shares[text] = _agreement(*(_measured(runner, text, half) for runner in runners))
    apart = {name: share for name, share in shares.items() if share < AGREE}
    return {"passed": not apart, "tried": len(shares), "agree": len(shares) - len(apart), "apart": apart}


def _half_forgotten(runner: TrialRunner) -> dict[str, Tensor]:
    runner.run([_spec("grad_diff")], [lambda *_: False])
    scope = runner.base.trainable
    before = scope.base_values()
    return {name: before[name].lerp(value, 0.6).cpu() for name, value in scope.snapshot().items()}


def _measured(runner: TrialRunner, text: str, weights: Mapping[str, Tensor]) -> Any:
    risk = measurement(text)
    task, _ = split(embedded_text.task(SMALL), 0.3, sources={"risk": risk.source})
    (probe,) = probes(runner.base, {"risk": task.queries["risk"][:24]}, {"risk": risk}, task)
    runner.base.trainable.load(weights)
    return measured(runner.base, [probe])["risk"]


def waits(sizes: Sizes) -> dict[str, Any]:
    """How often the host waits for the device in a step, by place; CUDA warns of each."""
    runner = _runner(sizes.device)
    steps = 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = runner.prepared(_spec("npo"), {1: _debug("warn", sizes), 1 + steps: _debug("default", sizes)})
        train_pack(runner.base, [run], runner.engine)
    # a message of a library's own is no wait
    places = Counter(
        f"{warning.filename.rpartition('/froc/')[2]}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    )
    per_step = {place: round(count / steps, 1) for place, count in places.most_common(12)}
    return {"passed": None, "per_step": round(sum(places.values()) / steps, 1), "places": per_step}


def _debug(mode: str, sizes: Sizes) -> Any:
    def switch() -> bool:
        if sizes.on_gpu:
            torch.cuda.set_sync_debug_mode(mode)
        return False

    return switch


def bits(sizes: Sizes) -> dict[str, Any]:
    """Whether the same steps give the same bits twice; with `--deterministic` they must."""
    differences: dict[str, float] = {}
    for autocast in ("off", "bfloat16"):
        runner = _runner(sizes.device, autocast)
        for wanted in (False, True):
            ends = []
            with deterministic(wanted):
                for _ in range(2):
                    method = make(Method, "npo", {"lr": 1e-3, "epochs": 1 if sizes.choice else 3})
                    unlearn(runner.base, method, runner.reference, batch=16, seed=1, engine=runner.engine)
                    ends.append({name: value.clone() for name, value in runner.base.trainable.snapshot().items()})
            apart = max(float((ends[1][name] - value).abs().max()) for name, value in ends[0].items())
            differences[f"autocast {autocast}, {'deterministic' if wanted else 'as is'}"] = apart
    return {"passed": all(not d for name, d in differences.items() if name.endswith("deterministic")), "largest_difference": differences}  # fmt: skip
