"""Adapters over a base in four bits: what is trained on, measured, merged, saved and certified is the rounded model."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from froc.attacks.quantization import nf4 as levels
from froc.audit import keys
from froc.audit.api import report, verify
from froc.data.splits import SearchView
from froc.errors import InputError
from froc.extras import require
from froc.measuring.measurement import measurement
from froc.measuring.query_losses import measured, probes
from froc.models import nf4
from froc.models.base import Base, digest_of, load
from froc.models.batches import Stack
from froc.models.compute import Engine
from froc.models.forward import Pass
from froc.models.memory_needs import needs
from froc.models.trainable import parse
from froc.models.training_options import read_scope
from froc.search.optuna.space import build
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.settings import Settings, measures
from froc.training.base_statistics import TrainingRows
from froc.training.memory_simulation import Simulation
from tests.search.small_search import Watch, job
from tests.training.small import encoded, gpt2

LEVELS = levels()
TRAIN = "lora:rank=4,bits=4"
NEAR: dict[str, Any] = {"budget": {"forgetting": 0.9, "utility": 0.9}, "allow_vacuous": True}


class StandIn:
    """bitsandbytes' two functions, by the paper: groups of weights, each rounded to the nearest of 16 levels times its largest."""

    def quantize_4bit(self, values: Tensor, blocksize: int, quant_type: str) -> tuple[Tensor, Any]:
        flat = values.float().reshape(-1)
        groups = torch.nn.functional.pad(flat, (0, -len(flat) % blocksize)).view(-1, blocksize)
        scales = groups.abs().amax(1)
        codes = (groups / scales.clamp_min(1e-30)[:, None]).view(-1, 1).sub(LEVELS).abs().argmin(1)[: len(flat)]
        state = SimpleNamespace(absmax=scales, shape=values.shape, dtype=values.dtype, blocksize=blocksize)
        return (codes[::2] * 16 + codes[1::2]).to(torch.uint8)[:, None], state

    def dequantize_4bit(self, codes: Tensor, state: Any) -> Tensor:
        each = torch.stack([codes[:, 0] // 16, codes[:, 0] % 16], 1).view(-1).long()
        scales = state.absmax.repeat_interleave(state.blocksize)[: len(each)]
        values: Tensor = (LEVELS[each] * scales).view(state.shape).to(state.dtype)
        return values


@pytest.fixture(params=["stand-in", "bitsandbytes"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "stand-in":
        monkeypatch.setattr(nf4, "library", StandIn)
        monkeypatch.setattr("froc.search.settings.require", lambda _: None)
    else:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.fixture
def four_bits(base: Base) -> Base:
    return load(base.name, device="cpu", train=TRAIN)


def _packed(model: Any) -> list[Any]:
    return [module for module in model.modules() if nf4.is_packed(module)]


def test_a_layer_in_four_bits_is_its_rounded_weights(four_bits: Base, base: Base) -> None:
    """Values, gradients to its inputs, and no weight of its own; close to the weights that were given."""
    layers = _packed(four_bits.model)
    assert len(layers) == 7 * len(four_bits.model.model.layers)
    plain = dict(base.model.named_parameters())["model.layers.0.mlp.up_proj.weight"].detach()
    layer = four_bits.model.model.layers[0].mlp.up_proj.base_layer
    rounded = nf4.weight(layer)
    assert len(torch.unique(rounded.view(-1, nf4.GROUP)[0])) <= 16
    assert 0 < float((rounded - plain).norm()) < 0.15 * float(plain.norm())
    x = torch.randn(2, 5, plain.shape[1], requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None
    same = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(torch.nn.functional.linear(same, rounded).square().sum(), same)
    assert torch.allclose(x.grad, slope, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    layer(x).float().sum().backward()


def test_plain_weights_may_be_changed_for_a_while(four_bits: Base) -> None:
    batch = Stack(encoded(5, 40), torch.device("cpu")).batch(range(5))
    with torch.no_grad():
        before = Pass(four_bits.model, batch).nll
        digest = digest_of(four_bits)
        with nf4.unpacked(four_bits.model):
            assert not _packed(four_bits.model)
            assert torch.allclose(Pass(four_bits.model, batch).nll, before, atol=1e-5)
            assert digest_of(four_bits) == digest
            four_bits.model.model.layers[0].mlp.up_proj.base_layer.weight.mul_(2)
        assert torch.equal(Pass(four_bits.model, batch).nll, before)
    assert digest_of(four_bits) == digest


@pytest.mark.parametrize("attack", ["relearning:steps=2", "quantization"])
def test_attacks_change_a_plain_model_and_leave_the_four_bits(four_bits: Base, parts: Any, attack: str) -> None:
    """Losses are those of the rounded model as a plain one, merged with the same adapters."""
    view: SearchView = parts[0]
    measures = {"forgetting": measurement(f"probability@{attack}")}
    queries = {"forgetting": view.queries["forgetting"][:12]}
    with torch.no_grad():
        for parameter in four_bits.trainable.parameters().values():
            parameter.add_(0.01)
    learnt = four_bits.trainable.snapshot()
    digest, state = digest_of(four_bits), four_bits.trainable.merged_state_dict()
    made = probes(four_bits, queries, measures, view)
    four_bits.trainable.load(learnt)
    losses = measured(four_bits, made)["forgetting"]
    assert digest_of(four_bits) == digest
    plain: Any = load(four_bits.name, device="cpu")
    plain.model.load_state_dict(state)
    assert abs(measured(plain, made)["forgetting"] - losses).max() <= 1


def test_a_search_certifies_and_saves_the_rounded_model(four_bits: Base, tmp_path: Path) -> None:
    """The folder needs no bitsandbytes, loads to the losses that were certified, and a report of it verifies."""
    made = job(four_bits, trials=2, candidates=1, train=TRAIN, **NEAR)
    made = replace(made, space=build(["npo"], {"lr": (2e-2, 3e-2), "epochs": (4, 5)}, {}))
    out, folder = tmp_path / "run", Folder(tmp_path / "run")
    certificate = run(made, out, Watch())
    assert json.loads((out / "plan.json").read_text())["search"]["train"] == TRAIN
    assert certificate["chosen"]
    saved = load(str(out / "model"), device="cpu")
    (candidate,) = json.loads(folder.seal.read_text())["candidates"]
    assert digest_of(saved) == candidate["weights_digest"]
    opened = made.sealed.open(json.loads(folder.seal.read_text()))
    forgetting = {"forgetting": opened["forgetting"]}
    losses = measured(saved, probes(saved, forgetting, measures(made.settings), made.view))
    mean = float(losses["forgetting"].mean()) / 1000
    assert mean == pytest.approx(certificate["candidates"][0]["empirical"]["forgetting"], abs=1e-3)
    keys.keygen(tmp_path / "key", None)
    bundle = report(out, key=tmp_path / "key", out=tmp_path, allow_small_sample=True).bundle
    result = verify(bundle, key=tmp_path / "key.pub", model=out / "model")
    assert (result.verdict, result.model_checked) == ("PASS", True)


def test_its_memory_is_counted(four_bits: Base, base: Base, parts: Any) -> None:
    """Half a byte a weight and four for 64; the same without values, where the table is counted."""
    linear = sum(nf4.weight(layer).numel() for layer in _packed(four_bits.model))
    adapters = sum(p.nbytes for p in four_bits.trainable.parameters().values())
    whole = sum(p.nbytes for p in base.model.parameters())
    assert needs(four_bits).weights == pytest.approx(whole - 4 * linear + linear / 2 + linear / 16 + adapters, rel=1e-3)
    assert nf4.count(four_bits.model) == sum(p.numel() for p in base.model.parameters())
    rows = TrainingRows.of(parts[0], base, 0)
    assert needs(Simulation(base, rows, Engine(), train=TRAIN).base) == needs(four_bits)


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="write bits=4, or leave bits out"):
        read_scope("lora:rank=4,bits=8")
    with pytest.raises(InputError, match="this model has none; leave bits out"):
        parse(TRAIN, gpt2(40))
    monkeypatch.setattr("froc.search.settings.require", require)
    monkeypatch.setattr("froc.extras.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"bitsandbytes is not installed; pip install 'froc\[nf4\]'"):
        Settings(budget={"forgetting": 0.1}, train=TRAIN).check()
