"""The precision of measuring: one for the base model and all candidates, in search, calibration, attacks and re-execution."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from froc.configuration_id import ConfigurationId
from froc.data.splits import Sealed, SearchView
from froc.data.task import FORGETTING, UTILITY
from froc.errors import InputError
from froc.measuring.measurement import measurement, plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import absences, losses, measured, observe_probe, probes
from froc.models.base import Base, load, measured_as
from froc.plugins import make
from froc.risk.positive_control import BASE
from froc.search.pipeline import run
from froc.search.plan import refuse_other_plan
from froc.search.reexecution import Target, environment, remeasure
from froc.search.run_folder import Folder
from froc.search.settings import Settings, settings_of
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.search.small_search import Watch, job

PROBABILITY = {FORGETTING: "probability", UTILITY: "probability"}


@pytest.fixture
def half(base: Base) -> Base:
    """The small model, measured in bfloat16."""
    return measured_as(base, "bfloat16")


def seen(base: Base) -> tuple[Counter[tuple[bool, torch.dtype]], Callable[[], None]]:
    """Whether gradients were wanted and in what type, for each product of an attention from now on; and what ends the count."""
    counted: Counter[tuple[bool, torch.dtype]] = Counter()
    model: Any = base.model
    handle = model.model.layers[0].self_attn.q_proj.register_forward_hook(
        lambda _module, _args, out: counted.update([(torch.is_grad_enabled(), out.dtype)])
    )
    return counted, handle.remove


def test_losses_in_bfloat16_agree_with_float32_in_thousandths(
    base: Base, half: Base, parts: tuple[SearchView, Sealed]
) -> None:
    """Means of probabilities agree. Where two tokens are nearly tied, greedy ones may swap: rarely, and for a whole query."""
    statistics = BaseStatistics(base, TrainingRows.of(parts[0], base, 0))
    queries = parts[0].queries
    compared = 0
    for method, lr in (("npo", 1e-3), ("grad_diff", 1e-3)):
        base.restore()
        unlearn(base, make(Method, method, {"lr": lr, "epochs": 3}), statistics, batch=16, seed=1)
        weights = base.trainable.snapshot()
        for name in ("extraction_strength", "probability"):
            measures = plain(dict.fromkeys(queries, make(Metric, name)))
            risk_probes = probes(base, queries, measures, parts[0])
            base.trainable.load(weights)
            exact = {probe.risk: losses(base, probe).astype(int) for probe in risk_probes}
            rounded = {probe.risk: losses(half, probe).astype(int) for probe in risk_probes}
            for risk in exact:
                apart = exact[risk] - rounded[risk]
                if name == "probability":
                    assert abs(apart.mean()) < 1
                else:
                    assert (apart != 0).mean() < 0.05
                compared += int(0 < exact[risk].mean() < 1000)
    # models that were unlearned wholly or not at all would agree in any precision
    assert compared >= 4


@pytest.mark.parametrize("risk", ["extraction_strength", "rouge_l", "extraction_strength@relearning:steps=1"])
def test_every_pass_of_measuring_has_the_precision(risk: str, base: Base, parts: tuple[SearchView, Sealed]) -> None:
    queries = {FORGETTING: parts[0].queries[FORGETTING][:4]}
    measures = {FORGETTING: measurement(risk)}
    for precision, dtype in ((None, torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        candidate = measured_as(base, precision)
        passes, end = seen(base)
        risk_probes = probes(candidate, queries, measures, parts[0])
        absences(candidate, risk_probes)
        measured(candidate, risk_probes)
        observe_probe(candidate, risk_probes[0])
        end()
        assert {kind for _, kind in passes} == {dtype}
        assert ("relearning" in risk) == any(training for training, _ in passes)


def test_parameters_in_half_precision_are_measured_as_they_are(folder: Path) -> None:
    base = load(str(folder), device="cpu", dtype="bfloat16")
    assert base.measuring_dtype == measured_as(base, "bfloat16").measuring_dtype == "bfloat16"
    with pytest.raises(InputError, match="--measure-dtype float32 does not go with parameters in bfloat16"):
        measured_as(base, "float32")
    with pytest.raises(InputError, match="no precision of measuring is called 'tf32'"):
        Settings({FORGETTING: 0.1}, measure_dtype="tf32").check()


def test_the_plan_says_it_and_what_is_measured_again_agrees(base: Base, half: Base, tmp_path: Path) -> None:
    wanted = job(half, epochs=(1, 2), trials=2, candidates=2, metrics=PROBABILITY, measure_dtype="bfloat16")
    out = tmp_path / "run"
    run(wanted, out, Watch())
    folder = Folder(out)
    plan, seal = json.loads(folder.plan.read_text()), json.loads(folder.seal.read_text())
    assert plan["search"]["measure_dtype"] == plan["environment"]["measured-in"] == "bfloat16"
    assert settings_of(plan, {}).measure_dtype == environment(half)["measured-in"] == "bfloat16"
    table = pl.concat([pl.read_parquet(folder.calibration_losses), pl.read_parquet(folder.base_losses)])
    calibration = table.filter(pl.col("split") == "calibration")
    seeds = {line.config: line.seed for line in folder.log()}
    targets = [
        Target(c["config"], c["method"], c["params"], seeds[str(ConfigurationId.parse(c["config"]).of_trial)])
        for c in seal["candidates"]
    ]
    targets.append(Target(BASE, BASE, {}, 0))
    again = remeasure(wanted, seal, targets, calibration, lambda *_: None)
    order = ["config", "risk", "query"]
    assert again.sort(order)["loss"].to_list() == calibration.sort(order)["loss"].to_list()
    exact = remeasure(replace(wanted, base=base), seal, targets, calibration, lambda *_: None)
    assert exact.sort(order)["loss"].to_list() != calibration.sort(order)["loss"].to_list()
    # a run goes on in its precision alone
    refuse_other_plan(plan, plan)
    other = {name: value for name, value in plan["search"].items() if name != "measure_dtype"}
    with pytest.raises(InputError, match="the run folder was made by another plan"):
        refuse_other_plan(plan, plan | {"search": other})
