"""Ways to train on the device: adapters over a bfloat16 base, float16 with loss scaling, checkpointing, packs, saves."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from froc.data.splits import SearchView
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.models.base import Base, load, save
from froc.models.batches import Encoded, Stack
from froc.models.compute import Engine
from froc.models.forward import Pass
from froc.plugins import make
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training import optimiser
from froc.training.checkpoint import Saver
from tests.pretend_cuda import device

SPEC = TrialSpec("npo", {"lr": 1e-3, "epochs": 1}, 1)


@pytest.fixture
def runner_of(parts: tuple[SearchView, Any]) -> Callable[..., TrialRunner]:
    def made(base: Base, **options: Any) -> TrialRunner:
        measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "probability")))
        engine = Engine.of(base.model, **options)
        return TrialRunner(base, parts[0], measures, batch=16, seed=0, engine=engine, swept=False)

    return made


def _trained(
    runner: TrialRunner, *specs: TrialSpec, saver: Saver | None = None
) -> list[tuple[Outcome, dict[str, Tensor]]]:
    specs = specs or (SPEC,)
    outcomes = runner.run(specs, [lambda *_: False] * len(specs), saver=saver)
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("complete", None)] * len(specs)
    scope = runner.base.trainable
    return [(o, {name: value.cpu() for name, value in scope.snapshot(o.adapter_index).items()}) for o in outcomes]


def _length(weights: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in weights.values()))


def _apart(runner: TrialRunner, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Distance of two ends, as a share of the way from the start to the first."""
    runner.base.restore(SPEC.seed)
    start = {name: value.cpu() for name, value in runner.base.trainable.snapshot().items()}
    away = _length({name: first[name] - second[name] for name in first})
    return away / _length({name: first[name] - start[name] for name in first})


def test_adapters_over_a_bfloat16_base(small: Path, runner_of: Callable[..., TrialRunner]) -> None:
    ends = {}
    for place in ("cpu", "cuda"):
        base = load(str(small), device=place, dtype=None if place == "cuda" else "bfloat16", train="lora:rank=4")
        assert base.dtype == "bfloat16"
        assert {p.dtype for p in base.trainable.parameters().values()} == {torch.float32}
        runner = runner_of(base)
        ends[place] = _trained(runner)[0]
    for risk, losses in ends["cpu"][0].ended[0].tables.items():
        assert np.abs(losses.astype(int) - ends["cuda"][0].ended[0].tables[risk]).max() <= 1
    # two ways to cut rows into passes, rounded to eight bits
    assert _apart(runner, ends["cpu"][1], ends["cuda"][1]) < 0.3


def test_autocast_is_bfloat16_unless_told(on_cuda: Base, runner_of: Callable[..., TrialRunner]) -> None:
    runner = runner_of(on_cuda)
    assert runner.engine.autocast == torch.bfloat16
    exact, rounded = _trained(runner_of(on_cuda, autocast="off"))[0], _trained(runner)[0]
    assert 0 < _apart(runner, exact[1], rounded[1]) < 0.5


def test_float16_scales_its_losses_and_skips_what_overflows(
    on_cuda: Base, runner_of: Callable[..., TrialRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(on_cuda, autocast="float16")
    exact, rounded = _trained(runner_of(on_cuda, autocast="off"))[0], _trained(runner)[0]
    assert 0 < _apart(runner, exact[1], rounded[1]) < 0.2
    steps: list[bool] = []
    apply = optimiser.PhaseOptimiser.apply_step

    def applied(self: optimiser.PhaseOptimiser, finite: bool, state: Any) -> str:
        # the first scale is far too large
        steps.append(finite)
        return apply(self, finite, state)

    scaler = torch.amp.GradScaler
    monkeypatch.setattr(optimiser.PhaseOptimiser, "apply_step", applied)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *args, **more: scaler(*args, **{**more, "init_scale": 2.0**40}))
    (outcome,) = runner_of(on_cuda, autocast="float16").run([TrialSpec("npo", {"epochs": 5}, 1)], [lambda *_: False])
    assert (outcome.status, steps[0]) == ("complete", False)
    assert steps[-1]


def test_checkpointing_holds_less_memory_to_the_same_weights(
    small: Path, on_cuda: Base, runner_of: Callable[..., TrialRunner]
) -> None:
    held, ends = [], []
    for checkpointing in (False, True):
        # the blocks of a model stay changed
        base = load(str(small), device="cuda") if checkpointing else on_cuda
        runner = runner_of(base, autocast="off", checkpointing=checkpointing)
        ends.append(_trained(runner)[0][1])
        batch = Stack([Encoded(tuple(range(3, 23)), 15, 4)] * 32, "cuda").batch(np.arange(32))
        before = device.allocated()
        logits = Pass(base.model, batch).logits
        held.append(device.allocated() - before)
        del logits
    assert all(torch.allclose(value, ends[1][name], atol=1e-6) for name, value in ends[0].items())
    assert held[1] < 0.2 * held[0]


def test_a_pack_trains_each_as_it_would_alone(small: Path, runner_of: Callable[..., TrialRunner]) -> None:
    specs = [TrialSpec(name, {"lr": 1e-3, "epochs": 1}, seed) for seed, name in enumerate(("npo", "grad_diff"))]
    base = load(str(small), device="cuda", dtype="float32", train="lora:rank=4", n_adapters=2)
    runner = runner_of(base, autocast="off")
    together = _trained(runner, *specs)
    for spec, (outcome, weights) in zip(specs, together, strict=True):
        ((alone, expected),) = _trained(runner, spec)
        assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in weights.items())
        assert outcome.ended[0].means == pytest.approx(alone.ended[0].means, abs=1e-3)


def test_a_trial_that_was_stopped_goes_on_to_the_same_bits(
    on_cuda: Base, runner_of: Callable[..., TrialRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROC_SAVE_EVERY", "0")
    runner = runner_of(on_cuda)
    expected = _trained(runner)[0][1]
    saver = Saver(tmp_path, "trial")
    write = saver.write

    def written(*args: Any) -> None:
        write(*args)
        if saver.steps() == [2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(saver, "write", written)
    with pytest.raises(KeyboardInterrupt):
        _trained(runner, saver=saver)
    ((outcome, weights),) = _trained(runner, saver=Saver(tmp_path, "trial"))
    assert outcome.resumed == 2
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())


def test_a_model_is_saved_from_the_device(on_cuda: Base, runner_of: Callable[..., TrialRunner], tmp_path: Path) -> None:
    weights = _trained(runner_of(on_cuda))[0][1]
    save(on_cuda, tmp_path)
    assert all(torch.equal(load(str(tmp_path), device="cpu").trainable.parameters()[n], v) for n, v in weights.items())
