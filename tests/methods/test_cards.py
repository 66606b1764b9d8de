"""Methods against what their papers and authors' code say, by hand: what behaviour alone would not show."""

import math
import re
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from froc.hyperparameters import spaces
from froc.methods._adversaries import Latent, SoftPrompt
from froc.methods._dpo import Preferred, Remember
from froc.methods.adaptive_rmu import SteerEach
from froc.methods.blur import ForgetFirst
from froc.methods.ceu import Otherwise
from froc.methods.flat import Likelihood
from froc.methods.gu import Harmless
from froc.methods.guard import Unaligned
from froc.methods.kl_min import BaseDivergence
from froc.methods.npo import NegativePreference
from froc.methods.pdu import Excess, Flatten, PrimalDual
from froc.methods.rmu import Hold, Steer
from froc.methods.simnpo import SimpleNegativePreference
from froc.methods.sure import Salient
from froc.methods.undial import Distill
from froc.methods.wga import Likely
from froc.models.batches import Encoded, Stack, collate
from froc.models.forward import Forward, Pass
from froc.plugins import find, make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, UpdateInputs, dot
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.terms import NLL, WeightedTerm, Weights


def _seen(bench: TrialRunner, role: Any, count: int, layer: int) -> Forward:
    return Forward.of(bench.base.model, collate(bench.reference.pools.rows[role], range(count), "cpu"), (layer,), False)


# what each method sums, as its card has it: every hyperparameter at a value of its own, wherever it belongs

UP, DOWN = NLL("retain"), NLL("forget", sign=-1.0)
KEEP = WeightedTerm(UP, 7.0)
SUMS: dict[str, tuple[dict[str, Any], list[WeightedTerm]]] = {
    "grad_ascent": ({}, [WeightedTerm(DOWN)]),
    "grad_diff": ({"retain_weight": 7.0}, [WeightedTerm(DOWN), KEEP]),
    "kl_min": ({"retain_weight": 7.0}, [WeightedTerm(DOWN), WeightedTerm(BaseDivergence("retain"), 7.0)]),
    "npo": ({"retain_weight": 7.0, "beta": 0.2}, [WeightedTerm(NegativePreference("forget", 0.2)), KEEP]),
    "simnpo": (
        {"retain_weight": 7.0, "beta": 2.0, "margin": 0.5},
        [WeightedTerm(SimpleNegativePreference("forget", 2.0, 0.5)), KEEP],
    ),
    "idk": (
        {"retain_weight": 7.0, "form": "dpo", "beta": 0.2},
        [WeightedTerm(Remember("forget")), WeightedTerm(Preferred("refusal", 0.2)), KEEP],
    ),
    "altpo": (
        {"retain_weight": 7.0, "beta": 0.2},
        [WeightedTerm(Remember("forget")), WeightedTerm(Preferred("alternate", 0.2)), KEEP],
    ),
    "rmu": (
        {"retain_weight": 7.0, "c": 3.0, "depth": 0.25},
        [WeightedTerm(Steer("forget", 4, 3.0, 9)), WeightedTerm(Hold("retain", 4), 7.0)],
    ),
    "adaptive_rmu": (
        {"retain_weight": 7.0, "c": 3.0, "depth": 0.25},
        [WeightedTerm(SteerEach("forget", 4, 3.0, 9)), WeightedTerm(Hold("retain", 4), 7.0)],
    ),
    "flat": (
        {"retain_weight": 7.0, "divergence": "pearson"},
        [
            WeightedTerm(Likelihood("refusal", "pearson", "template")),
            WeightedTerm(Likelihood("forget", "pearson", "forget")),
            KEEP,
        ],
    ),
    "undial": ({"retain_weight": 7.0, "beta": 4.0}, [WeightedTerm(Distill("forget", 4.0)), KEEP]),
    "wga": ({"retain_weight": 7.0, "beta": 2.0}, [WeightedTerm(DOWN, 1.0, (Likely(2.0, 0.0),)), KEEP]),
    "satimp": (
        {"retain_weight": 7.0, "beta1": 3.0, "beta2": 0.2},
        [WeightedTerm(DOWN, 1.0, (Likely(3.0, 0.2),)), KEEP],
    ),
    "ceu": ({"retain_weight": 7.0, "skip": 2}, [WeightedTerm(Otherwise("forget", 2)), KEEP]),
    "task_vector": ({"scale": 3.0}, [WeightedTerm(NLL("forget"))]),
    "pdu": (
        {"slack": 0.2, "dual_rate": 3.0, "dual_start": 50.0},
        [WeightedTerm(Flatten("forget")), WeightedTerm(Excess("retain"))],
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_method_is_the_sum_that_its_card_says(name: str) -> None:
    hyperparameters, parts = SUMS[name]
    assert set(spaces(find(Method, name))) == {"lr", "epochs", *hyperparameters}
    (phase,) = make(Method, name, hyperparameters).phases(MethodContext(17, 8, 9))
    assert list(phase.parts.values()) == parts
    dual = PrimalDual(slack=0.2, rate=3.0, start=50.0) if name == "pdu" else None
    assert phase.combiner == dual if dual else type(phase.combiner) is Combiner
    assert not phase.filters
    assert phase.adversary is None
    assert bool(phase.trains) == ("rmu" in name)
    # a task vector is taken away, not added
    assert make(Method, name, hyperparameters).mix == (-3.0 if name == "task_vector" else 1.0)


def test_idk_in_its_other_form_learns_refusals_alone() -> None:
    (phase,) = make(Method, "idk", {"form": "nll", "retain_weight": 7.0}).phases(MethodContext(17, 8, 9))
    assert list(phase.parts.values()) == [WeightedTerm(NLL("refusal")), KEEP]


def test_a_wrapper_changes_its_slot_and_nothing_else() -> None:
    """On npo, each hyperparameter at a value of its own; 17 blocks, of which 0.3 are 5."""
    context = MethodContext(17, 8, 9)
    (plain,) = make(Method, "npo").phases(context)
    npo = plain.parts["forget"]
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "blur": ({"gamma": 2.0}, {"combiner": ForgetFirst(2.0)}),
        "gu": ({"memory": 3}, {"filters": (Harmless(3),)}),
        "sure": ({"threshold": 0.7}, {"filters": (Salient(0.7),)}),
        "guard": (
            {"temperature": 2.0},
            {"parts": {**plain.parts, "forget": WeightedTerm(npo.term, 1.0, (Unaligned(2.0),))}},
        ),
        "lat": ({"push_depth": 0.3, "epsilon": 0.4, "push_steps": 3}, {"adversary": Latent(3, 5, 0.4)}),
        "advunlearn": ({"tokens": 3, "push_steps": 5, "push_rate": 0.2}, {"adversary": SoftPrompt(5, 3, 0.2, 9)}),
    }
    for name, (hyperparameters, changed) in changes.items():
        assert set(spaces(find(Method, name))) == {"lr", "epochs", *hyperparameters}
        (phase,) = make(Method, f"{name}(npo)", hyperparameters).phases(context)
        for slot in ("parts", "combiner", "filters", "adversary", "trains", "step_fraction"):
            if slot == "combiner" and slot not in changed:
                assert type(phase.combiner) is Combiner
            else:
                assert getattr(phase, slot) == changed.get(slot, getattr(plain, slot)), (name, slot)


def test_a_composition_is_made_of_what_was_chosen() -> None:
    """Each choice beside those of a plain one, with its hyperparameters at values of their own; no other choice's are read."""
    context = MethodContext(17, 8, 9)
    values: dict[str, Any] = {
        "retain_weight": 7.0, "gamma": 2.0, "slack": 0.2, "dual_rate": 3.0, "dual_start": 50.0, "npo_beta": 0.2,
        "simnpo_beta": 2.0, "undial_beta": 4.0, "ceu_skip": 2, "likely_up": 3.0, "likely_down": 0.3, "temperature": 5.0,
        "memory": 3, "threshold": 0.7, "push_depth": 0.3, "epsilon": 0.4,
    }  # fmt: skip

    def made(**choices: str) -> Any:
        return make(Method, "compose", values | choices).phases(context)[0]

    forgets = {
        "nll": DOWN, "npo": NegativePreference("forget", 0.2), "simnpo": SimpleNegativePreference("forget", 2.0),
        "undial": Distill("forget", 4.0), "ceu": Otherwise("forget", 2), "flatten": Flatten("forget"),
    }  # fmt: skip
    for forget, term in forgets.items():
        weighed = (Likely(3.0, 0.3),) if forget == "nll" else ()
        assert made(forget=forget).parts == {"forget": WeightedTerm(term), "retain": KEEP}
        assert made(forget=forget, tokens="likely").parts["forget"] == WeightedTerm(term, 1.0, weighed)
        assert made(forget=forget, rows="guard").parts["forget"] == WeightedTerm(term, 1.0, (Unaligned(5.0),))
    assert made(retain="kl").parts["retain"] == WeightedTerm(BaseDivergence("retain"), 7.0)
    blur, dual = made(combiner="blur", retain="kl"), made(combiner="dual", retain="kl")
    assert (blur.parts["retain"], blur.combiner) == (WeightedTerm(BaseDivergence("retain")), ForgetFirst(2.0))
    assert (dual.parts["retain"], dual.combiner) == (WeightedTerm(Excess("retain")), PrimalDual(0.2, 3.0, 50.0))
    assert type(made().combiner) is Combiner
    assert (made().filters, made().adversary, made().trains) == ((), None, "")
    assert made(update="gu").filters == (Harmless(3),)
    assert made(update="sure").filters == (Salient(0.7),)
    assert made(under="lat").adversary == Latent(4, 5, 0.4)
    pattern = made(parts="feed_forward").trains
    assert all(re.search(pattern, name.format(1)) for name, second in NAMES.items() if second or "up_proj" in name)
    assert not any(re.search(pattern, name.format(1)) for name in NAMES if "attn" in name)


# rmu


def test_states_that_tell_of_an_answer_are_those_that_predict_it_but_never_a_rows_first() -> None:
    """A question of 3 tokens: its last, and the answer's but the end. Plain text: the first token's state is left out."""
    rows = [Encoded((5, 6, 7, 8, 9, 0), 3, 2), Encoded((5, 6, 7, 0), 1, 2)]
    result = Stack(rows, "cpu").batch([0, 1]).answer_states
    assert result.tolist() == [[False, False, True, True, True, False], [False, True, True, False, False, False]]


@torch.no_grad()
def test_rmu_steers_towards_one_positive_direction_as_long_as_it_says_and_holds_what_the_base_had(
    bench: TrialRunner,
) -> None:
    bench.base.restore()
    layer, c = 1, 3.0
    bench.reference.prepare("forget", ("hidden_norm",), (layer,), 7)
    bench.reference.prepare("retain", ("hidden",), (layer,), 7)
    rows = bench.reference.pools.rows
    forget, retain = _seen(bench, "forget", len(rows["forget"]), layer), _seen(bench, "retain", 6, layer)
    states = [h[row.prompt - 1 : len(row.ids) - 1] for h, row in zip(forget.hidden(layer), rows["forget"], strict=True)]
    norm = float(torch.cat(states).norm(dim=-1).mean())
    every = torch.arange(len(states)).numpy()
    numbers = bench.reference.lookup("forget", ("hidden_norm",), (layer,), every)
    assert float(numbers["hidden_norm"]) == pytest.approx(norm, rel=1e-5)
    state: dict[str, Any] = {}
    first = Steer("forget", layer, c, seed=1).losses(forget, numbers, state)
    target: Tensor = state["target"]
    assert float(target.norm()) == pytest.approx(c * norm, rel=1e-5)
    assert bool((target >= 0).all())
    assert first.tolist() == pytest.approx(
        [float((h - target).square().sum(-1).mean()) / norm**2 for h in states], rel=1e-4
    )
    Steer("forget", layer, c, seed=2).losses(forget, numbers, state)
    assert state["target"] is target
    held = bench.reference.lookup("retain", ("hidden",), (layer,), every[:6])
    assert Hold("retain", layer).losses(retain, held, state).abs().max() < 1e-8
    away = {"hidden": held["hidden"] + 0.5}
    by_hand = 0.25 * target.numel() / norm**2
    assert Hold("retain", layer).losses(retain, away, state).tolist() == pytest.approx([by_hand] * 6, rel=1e-4)


NAMES = {
    "model.layers.{}.mlp.down_proj.weight": True,
    "transformer.h.{}.mlp.c_proj.weight": True,
    "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight": True,
    "model.decoder.layers.{}.fc2.weight": True,
    "model.layers.{}.mlp.experts.7.down_proj.weight": True,
    "model.layers.{}.mlp.experts.down_proj": True,
    "transformer.h.{}.attn.c_proj.weight": False,
    "model.layers.{}.self_attn.o_proj.weight": False,
    "model.layers.{}.mlp.up_proj.weight": False,
    "model.decoder.layers.{}.fc2.bias": False,
}


@pytest.mark.parametrize("name", NAMES)
def test_rmu_moves_the_feed_forward_outputs_of_three_layers_and_nothing_else(name: str) -> None:
    """Of 17 blocks at depth 0.5: the block 8 and the two before it, whatever an expert's number."""
    trains = make(Method, "rmu", {"depth": 0.5}).phases(MethodContext(17, 8, 0))[0].trains
    moved = {layer for layer in range(17) if re.search(trains, name.format(layer))}
    assert moved == ({6, 7, 8} if NAMES[name] else set())


def test_passes_of_other_rows_do_not_change_which_states_tell(bench: TrialRunner) -> None:
    """Of rows cut into two passes, as of one pass over all."""
    bench.base.restore()
    stack = Stack(bench.reference.pools.rows["forget"][:6], "cpu")
    with torch.no_grad():
        first, second = (
            Pass(bench.base.model, stack.batch(places), hidden_at=(0,)) for places in ([4, 1, 0], [2, 5, 3])
        )
        cut = Forward([(first, torch.tensor([2, 0]).numpy(), torch.tensor([0, 2]).numpy()),
                       (second, torch.tensor([1]).numpy(), torch.tensor([1]).numpy())])  # fmt: skip
        whole = Forward.of(bench.base.model, stack.batch([0, 5, 4]), (0,))
        result, wanted = (entry.mean_over_states(entry.hidden(0).sum(-1)) for entry in (cut, whole))
    assert torch.allclose(result, wanted, atol=1e-4)


# sure


def test_sure_moves_rows_at_or_above_the_quantile_of_all_rows_and_nothing_by_momentum() -> None:
    """Norms 1 to 10 over two parameters, one of them a vector: the 0.9 quantile is 9.1, the 0.5 quantile 5.5."""
    grads = {"matrix": torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [0.0, 2.0], [4.0, 0.0], [0.0, -3.0]]),
             "vector": torch.tensor([-9.0, 8.0, 7.0, 6.0])}  # fmt: skip
    update = {name: torch.ones_like(grad) for name, grad in grads.items()} | {"retain alone": torch.ones(2, 2)}
    for threshold, left in ((0.9, {10}), (0.5, {6, 7, 8, 9, 10}), (0.7, {8, 9, 10}), (0.0, set(range(1, 11)))):
        result = Salient(threshold)(update, UpdateInputs({"forget": grads}, {}, {}))
        sizes = {"matrix": grads["matrix"].norm(dim=1), "vector": grads["vector"].abs()}
        moved = {round(float(size)) for name, norms in sizes.items() for size, row in zip(norms, result[name], strict=True) if row.any()}  # fmt: skip
        assert moved == left
        assert not result["retain alone"].any()
        assert all(bool(((entry == 0) | (entry == 1)).all()) for entry in result.values())
    few = {"embeddings": torch.tensor([[0.0]] * 8 + [[1.0]] * 2)}
    result = Salient(0.5)({"embeddings": torch.ones(10, 1)}, UpdateInputs({"forget": few}, {}, {}))
    assert result["embeddings"].flatten().tolist() == [0.0] * 8 + [1.0] * 2


def test_undial_has_the_authors_learning_rate() -> None:
    assert find(Method, "undial")().lr == 10 * find(Method, "npo")().lr == pytest.approx(1e-4)
    assert math.isclose(make(Method, "gu(undial)").lr, 1e-4)


# around others


def test_gu_keeps_the_retain_loss_where_a_dual_variable_has_come_down_to_zero(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side's gradient is its own: under lambda = 0 there is still a retain loss that may not rise."""
    seen: list[tuple[float, float, float, float]] = []
    plain = Harmless.__call__

    def watched(self: Harmless, update: Weights, inputs: UpdateInputs) -> Weights:
        after = plain(self, update, inputs)
        retain = inputs.gradients["retain"]
        size = math.sqrt(float(dot(retain, retain) * dot(update, update))) + 1e-30
        rises = [float(dot(retain, step)) / size for step in (update, after)]
        seen.append((float(inputs.state["lambda"]), float(dot(retain, retain)), rises[0], rises[1]))
        return after

    monkeypatch.setattr(Harmless, "__call__", watched)
    hyperparameters = {"lr": 2e-3, "epochs": 2, "slack": 2.0, "dual_rate": 1000.0, "dual_start": 1.0}
    unlearn(bench.base, make(Method, "gu(pdu)", hyperparameters), bench.reference, batch=16, seed=1)
    bench.base.restore()
    free = [step for step in seen if step[0] == 0.0]
    assert len(free) >= len(seen) - 1 > 0
    assert all(size > 0 for _, size, _, _ in free)
    assert any(before > 1e-3 for _, _, before, _ in free)
    assert all(after < 1e-4 for _, _, _, after in free)


def test_a_task_vector_goes_the_other_way_than_it_learnt(bench: TrialRunner) -> None:
    """The forgotten answers get unlikelier by it; learnt still better, they could not."""
    bench.base.restore()
    batch = Stack(bench.reference.pools.rows["forget"], "cpu").batch(range(32))
    before = float(Pass(bench.base.model, batch).nll.detach().mean())
    hyperparameters = {"lr": 2e-3, "epochs": 3, "scale": 5.0}
    unlearn(bench.base, make(Method, "task_vector", hyperparameters), bench.reference, batch=16, seed=1)
    assert float(Pass(bench.base.model, batch).nll.detach().mean()) > before + 1
    bench.base.restore()


class Sums:
    """A forward pass whose summed likelihoods and lengths are given."""

    def __init__(self, sums: list[float], lengths: list[int]) -> None:
        self.sum_nll, self.count = torch.tensor(sums), torch.tensor(lengths)
        self.mean_nll = self.sum_nll / self.count


def test_the_constraint_of_pdu_is_on_what_comes_beyond_the_base() -> None:
    """3 nats over 2 tokens where the base has 1: 1 per token; the base's own loss is no excess."""
    numbers = {"sum_nll": torch.tensor([1.0, 4.0])}
    result = Excess("retain").losses(cast(Any, Sums([3.0, 4.0], [2, 5])), numbers, {})
    assert result.tolist() == pytest.approx([1.0, 0.0])
