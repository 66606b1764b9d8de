"""Contrastive attenuation: what is counted against a neuron and for it, and what turning it down does."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from froc.errors import InputError
from froc.methods.u_can import UCAN, Attenuate, Contrast, Neurons, attenuation
from froc.models.trainable import Full
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseStatistics, MethodContext
from froc.training.components import StepContext
from froc.training.fisher import linear_layers
from froc.training.loop import unlearn
from tests.training.small import BUILDERS, gpt2, nll, reference


def _small(trains: str = "") -> BaseStatistics:
    model = gpt2(14, width=8, inner=12, spread=0.5)
    return reference(model, scope=Full(model, trains))


def _edited(made: BaseStatistics, **params: Any) -> dict[str, Tensor]:
    unlearn(made.base, UCAN(**params), made, batch=16, seed=1)
    return made.base.trainable.snapshot()


def _read(made: BaseStatistics, role: str, name: str) -> Tensor:
    """(states, in) what a matrix reads where answers and their ends are predicted, but at no row's first token, row by row."""
    layer, result = linear_layers(made.base.model, [name])[name], []
    for row in made.pools.rows[role]:
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _layer, args, seen=seen: seen.append(args[0][0].detach()))
        with torch.no_grad():
            made.base.model(input_ids=torch.tensor([row.ids]))
        hook.remove()
        result.append(seen[0][max(row.prompt - 1, 1) : len(row.ids) - 1])
    return torch.cat(result).double()


def test_risk_is_the_contrast_of_sizes_and_utility_what_is_written_on_retain_rows() -> None:
    made = _small()
    neurons = made.ask(Contrast())
    assert set(neurons) == {f"transformer.h.{k}.{part}.c_proj.weight" for k in (0, 1) for part in ("attn", "mlp")}
    for name, contrast in neurons.items():
        forget, retain = _read(made, "forget", name), _read(made, "retain", name)
        risk = (forget.abs().mean(0) - retain.abs().mean(0)).clamp_min(0.0)
        assert bool((risk == 0).any())
        assert torch.allclose(contrast.risk, risk / risk.max(), atol=1e-5)
        weight = made.base.model.get_parameter(name).detach().double()
        # GPT-2's matrices are (in, out)
        utility = weight.square().sum(1).sqrt() * retain.square().mean(0).sqrt()
        assert torch.allclose(contrast.utility, utility / utility.max(), atol=1e-5)


LAST = {
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "opt": ("self_attn.out_proj", "fc2"),
}


@pytest.mark.parametrize("kind", LAST)
def test_last_matrices_are_found_by_name_across_architectures(kind: str) -> None:
    contrasts = reference(BUILDERS[kind](20)).ask(Contrast())
    expected = {f".{layer}.{name}.weight" for layer in (0, 1) for name in LAST[kind]}
    assert {name[name.index(".0." if ".0." in name else ".1.") :] for name in contrasts} == expected


def test_attenuation_by_hand() -> None:
    scores = torch.tensor([0.1, 0.5, 0.7, 1.0], dtype=torch.float64)
    result = attenuation(scores, 0.5, 2.0)
    assert result.tolist() == pytest.approx([1.0, 1.0, math.exp(-0.4), math.exp(-1.0)])


def _edit(
    made: BaseStatistics, neurons: Mapping[str, Neurons], strength: float, threshold: float, caution: float
) -> None:
    made.base.restore()
    parameters = {name: p for name, p in made.base.trainable.parameters().items() if name in neurons}
    Attenuate(neurons, strength, threshold, caution)(StepContext(made, parameters, {}, 16, 0, 0))


def test_each_column_of_a_matrix_is_turned_down_by_its_own_score() -> None:
    """The quantile is over all matrices together: here 1 of 4 neurons is above that at 2/3."""
    made = _small()
    names = ["transformer.h.0.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.weight"]
    zero = torch.zeros(12, dtype=torch.float64)
    first, second = zero.clone(), zero.clone()
    first[4], second[7] = 1.0, 0.5
    utility = zero.clone()
    utility[7] = 1.0
    _edit(made, {names[0]: Neurons(first, zero), names[1]: Neurons(second, utility)}, 3.0, 0.5, 0.25)
    for name, column, score in ((names[0], 4, 1.0), (names[1], 7, 0.5 - 0.25)):
        share = made.base.model.get_parameter(name).detach() / made.base.trainable.base_values()[name]
        expected = torch.ones(12)
        expected[column] = math.exp(-3.0 * score)
        assert torch.allclose(share, expected[:, None].expand_as(share), rtol=1e-5)


def test_at_no_strength_it_is_the_identity_and_more_strength_forgets_more(bench: TrialRunner) -> None:
    same = _edited(bench.reference, strength=0.0)
    start = bench.base.trainable.base_values()
    assert all(torch.equal(value, start[name]) for name, value in same.items())
    risen = []
    for strength in (0.0, 2.0, 5.0, 10.0, 20.0, 50.0):
        changed = _edited(bench.reference, strength=strength)
        risen.append(nll(bench.reference, "forget"))
    assert risen == sorted(risen)
    assert risen[-1] > risen[0] + 0.3
    moved = {name for name, value in changed.items() if not torch.equal(value, start[name])}
    assert moved
    assert all(name.endswith(("down_proj.weight", "o_proj.weight")) for name in moved)
    bench.base.restore()


def test_neurons_by_chance_cost_the_retain_rows_more_for_the_same_forgetting(bench: TrialRunner) -> None:
    """The same scores shuffled within each matrix, as strong as it takes to forget as much; several draws."""
    made = bench.reference
    bench.base.restore()
    before = nll(made, "retain")
    neurons = made.ask(Contrast())
    _edit(made, neurons, 20.0, 0.7, 0.3)
    aim, ours = nll(made, "forget"), nll(made, "retain") - before
    assert aim > 0.2
    theirs = []
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        shuffled = {}
        for name, contrast in neurons.items():
            order = torch.randperm(len(contrast.risk), generator=draw)
            shuffled[name] = Neurons(contrast.risk[order], contrast.utility[order])
        low, high = 0.0, 1.0
        # shares of neurons rise until enough is forgotten: at any strength, a few of them may not do
        for _ in range(12):
            middle = (low + high) / 2
            _edit(made, shuffled, 20.0, 1.0 - middle, 0.3)
            low, high = (middle, high) if nll(made, "forget") < aim else (low, middle)
        _edit(made, shuffled, 20.0, 1.0 - high, 0.3)
        if nll(made, "forget") >= aim:
            theirs.append(nll(made, "retain") - before)
    bench.base.restore()
    assert len(theirs) >= 3
    assert min(theirs) > 1.3 * ours


def test_it_edits_what_may_move_and_refuses_adapters() -> None:
    with pytest.raises(InputError, match="--train full"):
        UCAN().phases(MethodContext(2, 8, 0, adapters=True))
    made = _small(r"\.h\.1\.")
    before = {name: p.detach().clone() for name, p in made.base.model.named_parameters()}
    _edited(made, strength=50.0)
    changed = {name for name, p in made.base.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"transformer.h.1.attn.c_proj.weight", "transformer.h.1.mlp.c_proj.weight"}
