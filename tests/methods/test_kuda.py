"""Deviating representations: the window of layers, the null space of retain inputs, what turns."""

import math
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from froc.errors import InputError
from froc.methods.kuda import KUDA, Deviate, Moments, NullSpace, RetainInputs, located
from froc.models.compute import Engine
from froc.models.forward import Forward, Pass
from froc.models.hooks import blocks
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.causal_tracing import Trace, Traced
from froc.training.components import UpdateInputs
from froc.training.loop import unlearn
from froc.training.run import Run
from tests.training.small import BUILDERS, changed, encoded, gpt2, llama, nll, passed, reference, states

V = 60


def _known(effects: list[float]) -> MethodContext:
    parts = Trace("forget").placeholder(MethodContext(len(effects), 8, 0)).parts
    traced = Traced(parts, torch.tensor(effects, dtype=torch.float64), 1.0)
    return MethodContext(len(effects), 8, 0, answer=lambda _survey: traced)


def test_the_window_is_where_the_mean_effect_is_largest() -> None:
    known = _known([1.0, 5.0, 0.0, 4.0, 4.0])
    assert located(known, 1) == (1,)
    assert located(known, 2) == (3, 4)
    # means 2, 3 and 8 / 3
    assert located(known, 3) == (1, 2, 3)
    assert located(known, 9) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_change_keeps_what_retain_inputs_do_not_touch(axis: int) -> None:
    """Five inputs in eight dimensions: strictly projected they are mapped as before, and what is orthogonal to them
    changes as it would have; at a threshold of 1 nothing is taken away."""
    draw = torch.Generator().manual_seed(0)
    seen = torch.randn(5, 8, generator=draw)
    values, vectors = torch.linalg.eigh(seen.double().T @ seen.double() / 5)
    spectra = {"w": Moments(axis, values.float(), vectors.float())}
    change = torch.randn((6, 8) if axis else (8, 6), generator=draw)
    inputs = UpdateInputs({}, {}, {})

    def mapped(by: Tensor, inputs: Tensor) -> Tensor:
        return inputs @ (by.T if axis else by)

    strict = NullSpace(spectra, 1e-6)({"w": change}, inputs)["w"]
    assert strict.shape == change.shape
    assert float(mapped(strict, seen).abs().max()) < 1e-5 * float(mapped(change, seen).abs().max())
    unseen = torch.randn(8, generator=draw)
    unseen = unseen - torch.linalg.pinv(seen) @ (seen @ unseen)
    assert torch.allclose(mapped(strict, unseen), mapped(change, unseen), atol=1e-5)
    assert torch.equal(NullSpace(spectra, 1.0)({"w": change}, inputs)["w"], change)
    assert not NullSpace({"w": Moments(axis, torch.arange(1.0, 9.0), torch.eye(8))}, 0.1)({"w": change}, inputs)[
        "w"
    ].any()


def _note(seen: list[Tensor], _module: Any, args: tuple[Tensor, ...]) -> None:
    seen.append(args[0].detach().reshape(-1, args[0].shape[-1]))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_spectra_are_of_what_each_matrix_reads(kind: str) -> None:
    """U diag(s) U' is E[a a'] over real tokens; a gate and its values read the same, the last matrix what is inside."""
    model = BUILDERS[kind](V)
    made = reference(model)
    spectra = made.ask(RetainInputs(1))
    block: Any = blocks(model)[1]
    feed = block if kind == "opt" else block.mlp
    inside = {
        "llama": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        "gpt2": ("mlp.c_fc", "mlp.c_proj"),
        "opt": ("fc1", "fc2"),
    }[kind]
    assert {name.partition(".1.")[2] for name in spectra} == {f"{name}.weight" for name in inside}
    inputs: dict[str, list[Tensor]] = {name: [] for name in inside}
    for row in made.pools.rows["retain"]:
        with ExitStack() as hooks:
            for name in inside:
                module = feed.get_submodule(name.removeprefix("mlp."))
                hooks.callback(module.register_forward_pre_hook(partial(_note, inputs[name])).remove)
            model(input_ids=torch.tensor([row.ids]))
    for full, spectrum in spectra.items():
        rows = torch.cat(inputs[full.partition(".1.")[2].removesuffix(".weight")])
        expected = rows.T @ rows / len(rows)
        again = spectrum.vectors * spectrum.values @ spectrum.vectors.T
        assert torch.allclose(again, expected, atol=1e-5 * float(expected.abs().max()))
        assert bool((spectrum.values.diff() >= 0).all())
        assert dict(model.named_parameters())[full].shape[spectrum.axis] == len(spectrum.values)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_strictly_projected_training_leaves_retain_rows_as_they_were(kind: str) -> None:
    """Two retain rows do not fill the inputs' space: forget rows' states turn, theirs and their likelihood stay."""
    model = gpt2(V, spread=0.02) if kind == "gpt2" else llama(V)
    made = reference(model, retain=encoded(2, V, seed=3))

    def all_states(role: str) -> Tensor:
        _, batch = next(made.batches(role))
        with torch.no_grad():
            return Pass(model, batch, hidden_at=(0, 1)).hidden[1][batch.attention.bool()]

    before = {role: all_states(role) for role in ("forget", "retain")}
    unlearn(made.base, KUDA(lr=3e-3, epochs=20, window=2, threshold=1e-8, retain_weight=0.0), made, batch=5, seed=0)
    assert float((all_states("retain") - before["retain"]).abs().max()) < 1e-4 * float(before["retain"].abs().max())
    assert float(cosine_similarity(all_states("forget"), before["forget"], dim=-1).mean()) < 0.98


def test_unknown_inputs_are_refused() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    model: Any = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=2, bos_token_id=None, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    with pytest.raises(InputError, match="matrices"):
        reference(model).ask(RetainInputs(0))
    with pytest.raises(InputError, match="--train full"):
        KUDA().phases(MethodContext(2, 8, 0, adapters=True))


def test_deviation_by_hand(bench: TrialRunner) -> None:
    """Near 2 ln 2 / beta at the base, in every layer; (2 / beta) ln(1 + e^-beta) where states are orthogonal."""
    bench.base.restore()
    rows = bench.reference.pools.rows["forget"]
    for layer in (0, 1):
        term = Deviate("forget", layer, 2.0, seed=1)
        bench.reference.prepare("forget", term.needs, (0, 1), 16)
        result = passed(bench.reference, "forget", (layer,))
        numbers = bench.reference.lookup("forget", term.needs, term.hidden_at, np.arange(len(rows)))
        losses = term.losses(result, numbers, {})
        assert losses.tolist() == pytest.approx([2 * math.log(2) / 2.0] * len(rows), rel=1e-3)
    # by turns the states of two coordinates each are swapped with their signs, which makes a right angle
    turned = numbers["hidden"].reshape(*numbers["hidden"].shape[:-1], -1, 2).flip(-1) * torch.tensor([1.0, -1.0])
    orthogonal = term.losses(result, {"hidden": turned.flatten(-2)}, {})
    assert orthogonal.tolist() == pytest.approx([math.log1p(math.exp(-2.0))] * len(rows), rel=0.03)


def test_each_layer_of_the_window_deviates_from_its_own_states(bench: TrialRunner) -> None:
    """At the base model a batch's loss is ln 2 at beta 2, up to the tilt; other layers' states lie far away."""
    run = Run(KUDA(window=2, beta=2.0), bench.reference, batch=16, seed=1, engine=Engine())
    picked = run.draw()
    with torch.no_grad():
        batch = bench.reference.stack.batch(picked["forget"] + bench.reference.offsets["forget"])
        losses = run.losses({"forget": Forward.of(bench.base.model, batch, (0, 1))}, picked)
    assert float(losses["forget"]) == pytest.approx(math.log(2), rel=1e-3)
    first, second = (states(bench.reference, "forget", layer) for layer in (0, 1))
    # the wrong layer's states would show: at a cosine of 0.98 the loss is 2 % less, twenty times what is let pass
    assert float(cosine_similarity(first, second, dim=-1).mean()) < 0.98


def _turned(bench: TrialRunner, **params: Any) -> tuple[list[float], float, float]:
    """Mean cosine of the first layer's forget states to the base's after every fourth step; both losses at the end."""
    bench.base.restore()
    before = states(bench.reference, "forget", 0)
    seen: list[float] = []

    def look() -> bool:
        seen.append(float(cosine_similarity(states(bench.reference, "forget", 0), before, dim=-1).mean()))
        return False

    method = KUDA(**{"lr": 5e-3, "epochs": 6, "window": 1, "retain_weight": 0.0, **params})
    unlearn(bench.base, method, bench.reference, batch=16, seed=1, callbacks=dict.fromkeys(range(4, 25, 4), look))
    return seen, nll(bench.reference, "forget"), nll(bench.reference, "retain")


def test_states_turn_and_the_projection_protects_retain_rows(bench: TrialRunner) -> None:
    """The bound on what changes for retain inputs holds for all of training; without projection they lose more, though
    the forget rows lose enough with it."""
    threshold = 0.05
    spectra = bench.reference.ask(RetainInputs(0))
    cosines, forget, retain = _turned(bench, threshold=threshold)
    assert len(cosines) == 6
    assert all(later < earlier for earlier, later in zip([1.0, *cosines], cosines, strict=False))
    assert changed(bench.base) == set(spectra)
    for name, spectrum in spectra.items():
        change = (bench.base.trainable.parameters()[name] - bench.base.trainable.base_values()[name]).detach()
        moments = spectrum.vectors * spectrum.values @ spectrum.vectors.T
        share = (change @ moments @ change.T).trace() / (change.square().sum() * spectrum.values.sum())
        assert 0 < float(share.sqrt()) < threshold**0.5
    assert forget > 1.0
    freely, without, lost = _turned(bench, threshold=1.0)
    assert lost > 4 * retain
    assert without > forget
    assert freely[-1] < cosines[-1]


def test_what_an_open_projection_moves_breaks_the_bound(bench: TrialRunner) -> None:
    """The bound is no matter of course: without projection the change is outside of it, on the mean of layers.

    0.093 on models of six seeds, deviation 0.012; with projection, 0.002 at most.
    """
    _turned(bench, threshold=1.0)
    shares = []
    for name, spectrum in bench.reference.ask(RetainInputs(0)).items():
        change = (bench.base.trainable.parameters()[name] - bench.base.trainable.base_values()[name]).detach()
        moments = spectrum.vectors * spectrum.values @ spectrum.vectors.T
        shares.append(float((change @ moments @ change.T).trace() / (change.square().sum() * spectrum.values.sum())))
    assert sum(shares) / len(shares) > 0.05


def test_the_retain_loss_holds_what_the_projection_lets_go(bench: TrialRunner) -> None:
    """Without projection: a tenth of the loss on retain rows, and forget rows are forgotten."""
    _, without, lost = _turned(bench, threshold=1.0)
    _, forget, retain = _turned(bench, threshold=1.0, retain_weight=1.0, lr=2e-2)
    assert retain < 0.3 * lost
    assert forget > 0.3 * without
