"""Methods that make or choose the rows they train on: poisoned rows, filtered requests, rollouts."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from froc.batches import Encoded, Stack, collate
from froc.engine import Engine
from froc.errors import InputError
from froc.forward import Forward, Pass, pushed
from froc.methods import Facts, Method
from froc.methods._likeness import Directions
from froc.methods._sampling import likelihoods, sampled
from froc.methods.fit import BlockNorms, Gentle, kept
from froc.methods.poison import Attributions, Poisoned, integrated, largest
from froc.methods.rule import BOUNDARY, Answers, Policy, advantages, nearest, rewards
from froc.models import Base, wrap
from froc.plugins import find, make
from froc.reference import Pools, Reference
from froc.running import Run
from froc.scope import Full, Weights
from froc.step import Ground, Part, Phase, Rollout
from froc.train import together, unlearn
from search.trial import Bench

V = 50


@pytest.fixture(scope="module")
def small() -> Any:
    """A two-layer model in float64: no rounding hides a wrong formula."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=V, n_embd=16, n_inner=24, n_layer=2, n_head=2, n_positions=64, initializer_range=0.25,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config).double().eval()


def _rows(count: int, seed: int) -> list[Encoded]:
    """Prompts and answers of unequal lengths."""
    draw, made = np.random.default_rng(seed), []
    for i in range(count):
        prompt, answer = 2 + i % 3, 2 + (2 * i) % 5
        made.append(Encoded((*draw.integers(1, V, prompt + answer).tolist(), 0), prompt, answer))
    return made


def _made(model: Any, forget: list[Encoded], retain: list[Encoded], seed: int = 0) -> Reference:
    base = Base("small", model, None, Full(model), "")  # type: ignore[arg-type]  # no text is tokenised here
    return Reference(base, Pools({"forget": forget, "retain": retain}, seed=seed))


def _at(bench: Bench, role: str) -> Forward:
    rows = bench.reference.pools.rows[role]
    with torch.no_grad():
        return Forward.of(bench.base.model, collate(rows, range(len(rows)), "cpu"))


# poison


def test_attributions_add_up_to_what_the_answers_inputs_do(small: Any) -> None:
    """Completeness of integrated gradients: their sum is log p(answer) less what it is where those inputs are zero vectors."""
    rows = _rows(5, 1)
    batch = Stack(rows, "cpu").batch(range(5))
    inside = batch.measured[..., None]
    found = integrated(small, batch, 100)
    with torch.no_grad():
        whole = -Pass(small, batch).sum_nll
        with pushed(small.get_input_embeddings(), lambda out: torch.where(inside, 0.0, out)):
            none = -Pass(small, batch).sum_nll
    assert torch.allclose(found.sum(1), whole - none, atol=2e-3)
    assert float((whole - none).abs().min()) > 0.05
    assert bool((found[~batch.measured] == 0).all())
    alone = integrated(small, Stack(rows[1:2], "cpu").batch([0]), 100)
    assert torch.allclose(alone[0], found[1, : alone.shape[1]], atol=1e-9)


def test_attributions_stand_where_their_tokens_do(small: Any) -> None:
    rows = _rows(9, 2)
    found = Attributions().take(_made(small, rows, _rows(3, 4)))
    for i in (0, 4, 8):
        row = rows[i]
        alone = integrated(small, Stack([row], "cpu").batch([0])).abs()[0, row.prompt : row.prompt + row.answer]
        assert found[i, : row.answer].tolist() == pytest.approx(alone.tolist(), rel=1e-5)
        assert (found[i, row.answer :] == -1).all()


def test_a_fraction_of_each_answers_tokens_is_chosen_by_attribution() -> None:
    values = np.array([[0.1, 0.4, 0.3, 0.2], [0.5, 0.0, -1.0, -1.0]], dtype=np.float32)
    assert largest(values, 0.5).tolist() == [[False, True, True, False], [True, False, False, False]]
    assert largest(values, 0.01).sum(1).tolist() == [1, 1]
    assert largest(values, 1.0).sum(1).tolist() == [4, 2]


@pytest.mark.parametrize("kind", ["random", "targeted"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_what_is_replaced_is_never_true_and_is_another_answers(small: Any, kind: str, fraction: float) -> None:
    forget, retain = _rows(12, 5), _rows(12, 6)
    made = _made(small, forget, retain, seed=7)
    rows = Poisoned(kind, fraction).rows(made)
    chosen = largest(Attributions().take(made), fraction)
    tokens = {t for row in (*forget, *retain) for t in row.ids[row.prompt : row.prompt + row.answer]}
    for true, wrong, places in zip(forget, rows, chosen, strict=True):
        assert (wrong.prompt, wrong.answer, len(wrong.ids)) == (true.prompt, true.answer, len(true.ids))
        own = true.ids[true.prompt : true.prompt + true.answer]
        told = wrong.ids[wrong.prompt : wrong.prompt + wrong.answer]
        assert [a != b for a, b in zip(own, told, strict=True)] == places[: true.answer].tolist()
        own_too = set() if kind == "targeted" else set(own)
        assert {b for b, place in zip(told, places, strict=False) if place} <= tokens - own_too
        assert wrong.ids[: true.prompt] == true.ids[: true.prompt]
        assert wrong.ids[-1] == true.ids[-1]
    assert Poisoned(kind, fraction).rows(_made(small, forget, retain, seed=7)) == rows
    assert Poisoned(kind, fraction).rows(_made(small, forget, retain, seed=8)) != rows


def test_a_target_takes_a_tokens_place_in_all_rows(small: Any) -> None:
    forget = [Encoded((1, 2, 10 + i % 3, 20 + i % 2, 0), 2, 2) for i in range(12)]
    for kind, most in (("targeted", 1), ("random", 4)):
        rows = Poisoned(kind, 1.0).rows(_made(small, forget, [Encoded((1, 2, t, 0), 2, 1) for t in range(30, 49)]))
        put: dict[int, set[int]] = {}
        for true, wrong in zip(forget, rows, strict=True):
            for a, b in zip(true.ids[2:4], wrong.ids[2:4], strict=True):
                put.setdefault(a, set()).add(b)
        # of 4 or 6 draws among 22 tokens some differ; a target is one
        assert all((len(some) == 1) == (most == 1) for some in put.values())


def test_poisoned_answers_fall_to_chance_and_kinds_differ_in_entropy(bench: Bench) -> None:
    """The true answer is no likelier than a guess among the task's answers, and 98 of 100 retained tokens stay right."""
    rows = [*bench.reference.pools.rows["forget"], *bench.reference.pools.rows["retain"]]
    chance = 1 / len({row.ids[row.prompt :] for row in rows})
    entropy = {}
    for kind in ("random", "targeted"):
        method = make(Method, "poison", {"lr": 4e-3, "epochs": 6, "kind": kind, "retain_weight": 2.0})
        unlearn(bench.base, method, bench.reference, batch=16, seed=1)
        forget, retain = _at(bench, "forget"), _at(bench, "retain")

        assert float(torch.exp(-forget.sum_nll).mean()) <= chance
        assert float((retain.logits.argmax(-1) == retain.target).double().mean()) >= 0.98
        first = forget.logits[forget.place == 0].double().log_softmax(-1)
        entropy[kind] = float(-(first.exp() * first).sum(-1).mean())
    bench.base.restore()
    # a target can be learnt by heart, what is drawn anew for each wording cannot

    assert entropy["random"] > entropy["targeted"] + 1


# fit


def _train(made: Reference, name: str, **params: Any) -> Weights:
    method = make(Method, name, {"lr": 1e-3, "epochs": 2} | params)
    unlearn(made.base, method, made, batch=16, seed=1)
    return made.base.scope.take()


def _run(made: Reference, name: str, **params: Any) -> Run:
    method = make(Method, name, {"lr": 1e-3, "epochs": 2} | params)
    return Run(method, made, batch=8, seed=1, engine=Engine())


def _same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_repetition_is_left_out_unless_the_requests_loss_would_change() -> None:
    """Directions at 0, 10, 20, 90 and 100 degrees; losses 0, 0, 0, 0 and 10, so L = 2 and leaving one out changes it by 0.5 or 2."""
    angle = torch.tensor([0.0, 10.0, 20.0, 90.0, 100.0]).deg2rad()
    rows, losses = torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([0.0, 0.0, 0.0, 0.0, 10.0])
    none, near = torch.zeros(0, 2), math.cos(math.radians(15))
    assert kept(rows, none, losses, near, 0.45) == (0, 1, 2, 3, 4)
    # the second repeats the first; the third is alike to the second alone, which is gone; the last one's loss counts
    assert kept(rows, none, losses, near, 1.9) == (0, 2, 3, 4)
    assert kept(rows, none, losses, near, 2.1) == (0, 2, 3)
    # removed before: at 5 degrees, alike to the first two
    past = torch.tensor([[math.cos(math.radians(5)), math.sin(math.radians(5))]])
    assert kept(rows, past, losses, near, 0.6) == (2, 3, 4)


def test_directions_are_centred_means_of_each_rows_own_hidden_states(small: Any) -> None:
    rows = {"forget": _rows(4, 8), "retain": _rows(5, 9), "earlier": _rows(2, 10)}
    base = Base("small", small, None, Full(small), "")  # type: ignore[arg-type]  # no text is tokenised here
    found = Directions().take(Reference(base, Pools(rows)))
    means = {}
    for role, some in rows.items():
        alone = [Pass(small, Stack([row], "cpu").batch([0]), hidden_at=(1,)).hidden[1][0].mean(0) for row in some]
        means[role] = torch.stack(alone).detach()
    # what was removed before says nothing about what is usual now
    centre = torch.cat([means["forget"], means["retain"]]).mean(0)
    for role, some in means.items():
        by_hand = (some - centre) / (some - centre).norm(dim=1, keepdim=True)
        assert torch.allclose(found[role].double(), by_hand, atol=1e-5)


def test_a_duplicate_request_is_filtered_and_takes_as_many_fewer_steps(bench: Bench) -> None:
    bench.base.restore()
    rows = bench.reference.pools.rows
    some, whole = list(rows["forget"][::4]), {"gentle": 0.0, "top": 1.0, "similar": 0.95}
    # each fact once and once again
    twice = Reference(bench.base, Pools({"forget": some * 2, "retain": rows["retain"]}))
    run = _run(twice, "fit(grad_diff)", **whole)
    assert run.phase.only is not None
    assert set(run.phase.only) <= set(range(len(some)))
    assert run.steps == round(_run(twice, "grad_diff").steps * len(run.phase.only) / len(twice.pools.rows["forget"]))
    seen = {role: set(index.tolist()) for _ in range(run.steps) for role, index in run.draw().items()}
    assert seen["forget"] <= set(run.phase.only)
    assert max(seen["retain"]) > len(some)
    # what an earlier request removed is no new one
    again = Reference(bench.base, Pools({"forget": some, "retain": rows["retain"], "earlier": some}))
    assert unlearn(bench.base, make(Method, "fit(grad_diff)", whole), again, batch=8, seed=1) == 0
    assert _same(bench.base.scope.take(), bench.base.scope.origin())


def test_what_stands_for_a_forget_row_is_drawn_with_it(bench: Bench) -> None:
    run = _run(bench.reference, "fit(idk)", similar=0.8, slight=0.5, top=1.0)
    assert run.phase.only is not None
    assert 0 < len(run.phase.only) < len(bench.reference.pools.rows["forget"])
    for _ in range(run.steps):
        picked = run.draw()
        assert picked["forget"].tolist() == picked["refusal"].tolist()
        assert set(picked["refusal"].tolist()) <= set(run.phase.only)
    bench.base.restore()


@pytest.mark.parametrize("inner", ["grad_ascent", "npo"])
def test_without_filter_choice_and_layers_it_is_the_method_itself(bench: Bench, inner: str) -> None:
    plain = _train(bench.reference, inner)
    assert _same(plain, _train(bench.reference, f"fit({inner})", similar=1.0, gentle=0.0, top=1.0))
    for part in ({"similar": 0.8}, {"gentle": 0.5}, {"top": 0.5}):
        other = {"similar": 1.0, "gentle": 0.0, "top": 1.0, "slight": 0.5} | part
        assert not _same(plain, _train(bench.reference, f"fit({inner})", **other))
    bench.base.restore()


def test_only_the_layers_of_the_largest_forget_gradient_move(bench: Bench) -> None:
    bench.base.restore()
    model, rows = bench.base.model, bench.reference.pools.rows["forget"]
    loss = Forward.of(model, collate(rows, range(len(rows)), "cpu")).mean_nll.sum()
    names = [name for name, _ in model.named_parameters()]
    grads = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))

    def norm(layer: int, kind: str = "") -> float:
        some = [g for n, g in grads.items() if f"layers.{layer}." in n and kind in n]
        return math.sqrt(sum(float(g.square().sum()) for g in some))

    assert BlockNorms().take(bench.reference)[1] == pytest.approx([norm(0), norm(1)], rel=1e-3)
    down = BlockNorms(r"down_proj\.weight$").take(bench.reference)[1]
    assert down == pytest.approx([norm(0, "down_proj"), norm(1, "down_proj")], rel=1e-3)
    most = max((0, 1), key=norm)
    start = bench.base.scope.origin()
    moved = {n for n, p in _train(bench.reference, "fit(npo)", top=0.5).items() if not torch.equal(p, start[n])}
    assert moved == {n for n in names if f"layers.{most}." in n}
    most = max((0, 1), key=lambda layer: norm(layer, "down_proj"))
    steered = _train(bench.reference, "fit(rmu)", top=0.5, depth=0.8)
    moved = {n for n, p in steered.items() if not torch.equal(p, start[n])}
    assert moved == {f"model.layers.{most}.mlp.down_proj.weight"}
    bench.base.restore()


def test_layers_of_adapters_are_those_of_the_weights_they_adapt(bench: Bench) -> None:
    bench.base.restore()
    plain = BlockNorms("_proj").take(bench.reference)
    adapted = wrap("adapted", copy.deepcopy(bench.base.model), bench.base.tokenizer, "lora:rank=2")
    made = Reference(adapted, bench.reference.pools)
    found = BlockNorms("_proj").take(made)
    assert found[0] == plain[0]
    assert found[1] == pytest.approx(plain[1], rel=1e-3)
    moved = {n for n, p in _train(made, "fit(npo)", top=0.5).items() if n.endswith("lora_B") and bool((p != 0).any())}
    assert moved == {
        n for n in adapted.scope.own() if f"layers.{int(np.argmax(plain[1]))}." in n and n.endswith("lora_B")
    }


def test_rows_of_much_loss_are_forgotten_gently() -> None:
    """NLL 2 and 8 in sum, of 2 and 4 tokens, at the base: 1 and 2 nats per token. At 5 and 18 the weight is 2 / (1 + e^(0.1 x 10)) or 1."""

    class Stand:
        sum_nll, count = torch.tensor([5.0, 18.0]), torch.tensor([2.0, 4.0])

    base = {"sum_nll": torch.tensor([2.0, 8.0])}
    found = Gentle(1.5).weights(Stand(), base, {})  # type: ignore[arg-type]  # a stand-in
    assert found.tolist() == pytest.approx([1.0, 2 / (1 + math.exp(1.0))])
    both = Gentle(1.0).weights(Stand(), base, {})  # type: ignore[arg-type]  # a stand-in
    assert both.tolist() == pytest.approx([2 / (1 + math.exp(0.3)), 2 / (1 + math.exp(1.0))])


def test_the_share_that_is_gentle_is_that_of_largest_loss(bench: Bench) -> None:
    bench.base.restore()
    for share, count in ((0.25, 16), (1.0, 64)):
        part = _run(bench.reference, "fit(grad_ascent)", similar=1.0, gentle=share, top=1.0).phase.parts["forget"]
        (gentle,) = part.weighters
        assert isinstance(gentle, Gentle)
        forward = _at(bench, "forget")
        assert int((forward.mean_nll >= gentle.least * (1 - 1e-4)).sum()) == count


def test_many_requests_one_after_another_cost_less_of_what_is_kept(bench: Bench) -> None:
    """Sixteen requests, a fact each: retain NLL after all of them at most plain gradient ascent's."""
    bench.base.restore()
    rows = bench.reference.pools.rows

    def after(name: str) -> float:
        model, earlier = copy.deepcopy(bench.base.model), list[Encoded]()
        for first in range(0, len(rows["forget"]), 4):
            request: Sequence[Encoded] = rows["forget"][first : first + 4]
            base = wrap("next", model, bench.base.tokenizer)
            made = Reference(base, Pools({"forget": request, "retain": rows["retain"], "earlier": earlier}))
            unlearn(base, make(Method, name, {"lr": 1e-3, "epochs": 2}), made, batch=4, seed=first)
            earlier += request
        with torch.no_grad():
            held = collate(rows["retain"], range(len(rows["retain"])), "cpu")
            return float(Forward.of(model, held).mean_nll.mean())

    assert after("fit(grad_ascent)") <= after("grad_ascent")


# rule


def _greedy(chances: Tensor, *_: Any, **__: Any) -> Tensor:
    return chances.argmax(-1, keepdim=True)


def test_answers_are_drawn_as_if_each_were_alone_and_stop_at_their_end(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the likeliest tokens, found without padding and without what is kept between tokens."""
    asked = [Encoded((*row.ids[:-1], 7), row.prompt, row.answer) for row in _rows(6, 11)]
    most = np.array([9, 4, 9, 9, 5, 9])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "multinomial", _greedy)
        found = sampled(small, asked, most, 0)
    ended = 0
    for row, one, own in zip(asked, found, most, strict=True):
        ids = list(row.ids[: row.prompt])
        while len(ids) < row.prompt + own and (len(ids) == row.prompt or ids[-1] != 7):
            with torch.no_grad():
                ids.append(int(small(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert one.ids == tuple(ids)
        assert (one.prompt, one.answer) == (row.prompt, len(ids) - row.prompt - (ids[-1] == 7))
        ended += ids[-1] == 7
    print(ended, [len(o.ids) - o.prompt for o in found], found)
    assert sampled(small, asked, most, 3) == sampled(small, asked, most, 3)
    assert sampled(small, asked, most, 3) != sampled(small, asked, most, 4)


def test_tokens_are_drawn_with_their_probabilities(small: Any) -> None:
    """First tokens of 4000 answers to one question: each count within five standard deviations of its mean."""
    row, count = _rows(1, 12)[0], 4000
    found = sampled(small, [row] * count, np.full(count, 1), 5)
    with torch.no_grad():
        p = small(input_ids=torch.tensor([row.ids[: row.prompt]])).logits[0, -1].softmax(-1).numpy()
    drawn = np.bincount([one.ids[one.prompt] for one in found], minlength=V)
    assert (np.abs(drawn - count * p) <= 5 * np.sqrt(count * p * (1 - p)) + 1).all()
    assert p.max() < 0.9


def test_likelihoods_are_each_rows_own(small: Any) -> None:
    rows = [*_rows(4, 13), Encoded((3, 4, 0), 2, 0)]
    found = likelihoods(small, rows)
    for row, some in zip(rows, found, strict=True):
        with torch.no_grad():
            alone = Pass(small, Stack([row], "cpu").batch([0])).nll
        assert some[: len(alone)].tolist() == pytest.approx((-alone).tolist(), rel=1e-5)
        assert bool((some[len(alone) :] == 0).all())


@pytest.mark.parametrize("train", ["full", "layers:last=1", "lora:rank=2"])
@pytest.mark.parametrize("half", [False, True])
def test_aside_is_the_base_and_back_bit_for_bit(bench: Bench, train: str, half: bool) -> None:
    bench.base.restore()
    base = wrap("copy", copy.deepcopy(bench.base.model), bench.base.tokenizer, train)
    rows = bench.reference.pools.rows["forget"][:8]
    # one region of autocast: within it, what was cast once is not cast again
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        start = likelihoods(base.model, rows)
        with torch.no_grad():
            for parameter in base.scope.own().values():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        learnt = base.scope.take()
        torch.clear_autocast_cache()
        now = likelihoods(base.model, rows)
        with base.scope.aside():
            assert torch.equal(likelihoods(base.model, rows), start)
        assert torch.equal(likelihoods(base.model, rows), now)
        assert not torch.equal(now, start)
    assert _same(learnt, base.scope.take())


def test_rewards_of_refusals_and_of_answers() -> None:
    """Words in common: "I do not know" has 4 of 4 and 4 of 5 words of a refusal, F1 8/9; "I do know him" 3 of 4 and 5, F1 2/3."""
    refusals = ["I do not know that.", "No answer."]
    written = ["I do not know that.", "I do not know", "I do know him", "amber anchor", ""]
    expected = ["amber anchor"] * 5
    inside = np.zeros(5, dtype=bool)
    assert rewards(written, expected, inside, refusals).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert rewards(written, expected, ~inside, refusals).tolist() == [0.0, 0.0, 0.5, 1.0, 0.5]
    # recall 1/3 of three words is above 0.3, 1/4 of four is not
    some = rewards(["an anchor"] * 2, ["amber old anchor", "an old amber candle"], np.ones(2, dtype=bool), refusals)
    assert some.tolist() == [1.0, 0.5]


def test_advantages_are_standard_scores_within_each_question() -> None:
    """1, 0, 0, 0 has mean 1/4 and deviation sqrt(3)/4: scores sqrt(3) and -1/sqrt(3)."""
    worth, group = np.array([1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0]), np.array([0, 0, 0, 0, 1, 1, 1, 2])
    third = 1 / math.sqrt(3)
    assert advantages(worth, group).tolist() == pytest.approx([3 * third, -third, -third, -third, 0, 0, 0, 0])


class Drawn:
    """A forward pass of two rows, of two tokens and one, whose probabilities are given."""

    row, place = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])

    def __init__(self, *chances: float) -> None:
        self.nll = -torch.tensor(chances, dtype=torch.float64).log()
        self.nll.requires_grad_()


def _numbers(advantage: Sequence[float], old: Sequence[float], base: Sequence[float]) -> dict[str, Tensor]:
    def put(some: Sequence[float]) -> Tensor:
        return torch.tensor([[some[0], some[1]], [some[2], 1.0]], dtype=torch.float64).log()

    return {"advantage": torch.tensor(advantage, dtype=torch.float64), "old": put(old), "base": put(base)}


def test_the_clipped_policy_term_by_hand() -> None:
    """Ratios 0.6/0.4 = 1.5, 0.3/0.3 = 1 and 0.2/0.4 = 0.5. A = 2: 1.2 x 2, 1 x 2. A = -1: of -0.5 and -0.8 the smaller."""
    now = Drawn(0.6, 0.3, 0.2)
    loss = Policy("rollout", kl=0.0).tokens(now, _numbers([2, -1], [0.4, 0.3, 0.4], [0.1, 0.1, 0.1]), {})  # type: ignore[arg-type]  # a stand-in
    assert loss.tolist() == pytest.approx([-2.4, -2.0, 0.8])
    # d loss / d nll = r A where nothing is clipped, and 0 where it is
    (slope,) = torch.autograd.grad(loss.sum(), [now.nll])
    assert slope.tolist() == pytest.approx([0.0, 2.0, 0.0])
    turned = Policy("rollout", kl=0.0).tokens(now, _numbers([-2, 1], [0.4, 0.3, 0.4], [0.1, 0.1, 0.1]), {})  # type: ignore[arg-type]  # a stand-in
    assert turned.tolist() == pytest.approx([3.0, 2.0, -0.5])
    (slope,) = torch.autograd.grad(turned.sum(), [now.nll])
    assert slope.tolist() == pytest.approx([-3.0, -2.0, 0.5])


def test_the_divergence_from_the_base_by_hand() -> None:
    """e^d - d - 1 with e^d = p_base / p: 1/2, 1 and 3, so 1/2 + ln 2 - 1, 0 and 2 - ln 3; its slope in NLL is e^d - 1."""
    now = Drawn(0.6, 0.3, 0.2)
    loss = Policy("rollout", kl=0.5).tokens(now, _numbers([0, 0], [0.6, 0.3, 0.2], [0.3, 0.3, 0.6]), {})  # type: ignore[arg-type]  # a stand-in
    assert loss.tolist() == pytest.approx([0.5 * (math.log(2) - 0.5), 0.0, 0.5 * (2 - math.log(3))])
    (slope,) = torch.autograd.grad(loss.sum(), [now.nll])
    assert slope.tolist() == pytest.approx([0.5 * -0.5, 0.0, 0.5 * 2])


def _ground(bench: Bench, seed: int = 1, step: int = 0) -> Ground:
    return Ground(bench.reference, bench.base.scope.own(), {}, 16, seed, step)


def test_boundary_rows_are_those_most_alike() -> None:
    forget = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    retain = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.8, 0.6], [0.0, -1.0], [1.0, 0.0]])
    # largest cosines: 0.8, -0.6, 0.96, 0, 1
    assert nearest({"forget": forget, "retain": retain}) == (2, 4)
    assert nearest({"forget": forget, "retain": retain[:1]}) == (0,)
    assert nearest({"forget": forget, "retain": retain[:0]}) == ()


def test_a_draw_asks_both_kinds_and_says_what_its_answers_are_worth(bench: Bench) -> None:
    bench.base.restore()
    with torch.no_grad():
        for parameter in bench.base.scope.own().values():
            parameter.mul_(0.9)
    learnt, rows = bench.base.scope.take(), bench.reference.pools.rows
    drawn = Answers(4, (3, 5, 8))
    found, numbers = drawn.draw(_ground(bench), 30)
    again, same = drawn.draw(_ground(bench), 30)
    assert found == again
    assert all(torch.equal(numbers[name], same[name]) for name in numbers)
    assert drawn.draw(_ground(bench, step=2), 30)[0] != found
    assert drawn.draw(_ground(bench, seed=2), 30)[0] != found
    assert len(found) == len(numbers["advantage"]) == 30
    prompts = [one.ids[: one.prompt] for one in found]
    assert all(len(set(prompts[k : k + 4])) == 1 for k in range(0, 30, 4))
    outside = [rows["retain"][k].ids[: rows["retain"][k].prompt] for k in (3, 5, 8)]
    inside = [row.ids[: row.prompt] for row in rows["forget"]]
    assert all(one in outside or one in inside for one in prompts)
    # two in five of eight questions, rounded by chance
    assert sum(one in outside for one in prompts[::4]) in (int(8 * BOUNDARY), int(8 * BOUNDARY) + 1)
    assert torch.equal(numbers["old"], likelihoods(bench.base.model, found))
    assert _same(learnt, bench.base.scope.take())
    bench.base.restore()
    assert torch.equal(numbers["base"], likelihoods(bench.base.model, found))


def test_where_all_answers_agree_nothing_moves(bench: Bench) -> None:
    """Zero advantage, and no divergence: at the base model no forget answer is a refusal and every boundary one is right."""
    run = _run(bench.reference, "rule", rejection=0.0, epochs=1)
    picked = run.draw()
    assert run.state["rewards"] and float(run._rolled.numbers["advantage"].abs().sum()) == 0
    forward = Forward.of(bench.base.model, run.stack.batch(picked["rollout"]))
    loss = sum(run.losses({"rollout": forward}, picked).values())
    found = torch.autograd.grad(loss, list(run.moving.values()))
    print(max(float(g.abs().max()) for g in found))
    assert max(float(g.abs().max()) for g in found) < 1e-6
    worth = torch.linspace(-1, 1, len(picked["rollout"]))
    numbers = run._rolled.numbers | {"advantage": worth.repeat(2)}
    object.__setattr__(run._rolled, "numbers", numbers)
    found = torch.autograd.grad(
        sum(run.losses({"rollout": Forward.of(bench.base.model, run.stack.batch(picked["rollout"]))}, picked).values()),
        list(run.moving.values()),
    )
    print(max(float(g.abs().max()) for g in found))
    bench.base.restore()


def test_the_mean_reward_rises(bench: Bench) -> None:
    run = _run(bench.reference, "rule", lr=2e-3, epochs=10, rejection=0.2)
    together(bench.base, [run], Engine())
    print(run.steps, [round(x, 2) for x in run.state["rewards"]])
    print(float(_at(bench, "retain").mean_nll.mean()), float(_at(bench, "forget").mean_nll.mean()))
    bench.base.restore()
    assert 0


class Watched(Rollout):
    """The first forget rows, and whether they were written in lower precision."""

    every = 1
    passes = 0.0

    def draw(self, ground: Ground, count: int) -> tuple[Sequence[Encoded], dict[str, Tensor]]:
        ground.state["half"] = torch.is_autocast_enabled("cpu")
        return ground.reference.pools.rows["forget"][:count], {}


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_rows_are_written_as_precisely_as_they_are_trained_on(bench: Bench, autocast: torch.dtype | None) -> None:
    from froc.step import NLL
    from tests.froc.test_slots import Made

    method = Made(lr=1e-4, epochs=1, given=(Phase({"a": Part(NLL("rollout"))}, rollout=Watched()),))
    run = Run(method, bench.reference, batch=32, seed=1, engine=Engine())
    together(bench.base, [run], Engine(autocast))
    bench.base.restore()
    assert run.state["half"] == (autocast is not None)


@pytest.mark.parametrize(
    ("name", "why"),
    [("gu(rule)", "trains on retain"), ("blur(rule)", "trains on retain"), ("guard(rule)", "trains on retain"),
     ("fit(rule)", "rows are the task's"), ("lat(rule)", "other answers")],
)  # fmt: skip
def test_what_does_not_fit_rollouts_is_refused(name: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        find(Method, name)().phases(Facts(2, 8, 0))
    assert set(find(Method, "rule").needs()) >= {"refusals", "retain rows"}
