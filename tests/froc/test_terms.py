"""The maths of methods: values worked out here, gradients by finite differences, and what no loss may depend on.

Everything in float64, on rows whose prompts and answers are of unequal lengths: equal ones hide most mistakes.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax
from transformers import GPT2Config, GPT2LMHeadModel

from froc import reference as references
from froc.alternates import Alternates
from froc.batches import Batch, Encoded, Stack
from froc.forward import Forward, Pass
from froc.likelihood import buckets
from froc.methods import TYPICAL, Facts, Method, wrappers
from froc.methods._dpo import Preferred, Remember
from froc.methods.ceu import Otherwise
from froc.methods.flat import DIVERGENCES, Likelihood
from froc.methods.kl_min import BaseDivergence
from froc.methods.pdu import Flatten
from froc.methods.rmu import Steer
from froc.methods.undial import Distill
from froc.methods.wga import Likely
from froc.models import Base
from froc.plugins import find, names
from froc.reference import Pools, Reference
from froc.scope import Full
from froc.step import NLL, Part, Phase, Weighter
from tests.froc.small import NO_TOKENIZER

V = 120
"""More tokens than 100: a label of -100 that is used as an index would hit one."""
FACTS = Facts(2, 16, 3)


def _terms(name: str) -> bool:
    """Whether all that a method does is train on rows of the task: edits have no terms, and rollouts have rows of their own."""
    phases = find(Method, name)().phases(TYPICAL)
    return bool(phases) and all(phase.parts and phase.rollout is None for phase in phases)


PLAIN = [name for name in names(Method) if name not in wrappers() and _terms(name)]


class Given(Forward):
    """A forward pass whose logits are given; `lengths`: answer tokens of each row."""

    def __init__(self, logits: Tensor, target: Sequence[int], lengths: Sequence[int]) -> None:
        self.logits = logits.double().detach().requires_grad_()
        self.target = torch.tensor(target)
        self.row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        self.place = torch.cat([torch.arange(n) for n in lengths])
        self.count = torch.tensor(lengths, dtype=torch.float64)
        self.nll = -log_softmax(self.logits, -1).gather(-1, self.target[:, None])[:, 0]

    def mean(self, tokens: Tensor) -> Tensor:
        return torch.zeros(len(self.count), dtype=tokens.dtype).index_add(0, self.row, tokens) / self.count

    @property
    def mean_nll(self) -> Tensor:
        return self.mean(self.nll)

    def slope(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), [self.logits], retain_graph=True)[0]


def _chances(*rows: Sequence[float]) -> Tensor:
    """Logits whose softmax is known."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_kl_is_the_kl_of_distributions_and_no_shift_of_logits_changes_it() -> None:
    """(0.5, 0.25, 0.25) against (0.25, 0.25, 0.5), in nats, by hand: 0.5 ln 2 + 0 - 0.25 ln 2."""
    base = {"spread": _chances([0.5, 0.25, 0.25]), "buckets": torch.empty(0, dtype=torch.int64)}
    for shift in (0.0, 1000.0):
        now = Given(_chances([0.25, 0.25, 0.5]) + shift, [0], [1])
        found = BaseDivergence("retain").tokens(now, base, {})
        assert found.tolist() == pytest.approx([0.25 * math.log(2)])
        assert now.slope(found).tolist()[0] == pytest.approx([0.25 - 0.5, 0.0, 0.5 - 0.25])
    same = Given(_chances([0.5, 0.25, 0.25]), [0], [1])
    found = BaseDivergence("retain").tokens(same, base, {})
    assert found.tolist() == pytest.approx([0.0])
    assert same.slope(found).abs().max() < 1e-12


def test_kl_over_buckets_is_a_lower_bound_that_the_likeliest_tokens_make_tight() -> None:
    draw = torch.Generator().manual_seed(0)
    base, now = (3 * torch.randn(7, V, generator=draw, dtype=torch.float64) for _ in range(2))
    exact = (softmax(base, -1) * (log_softmax(base, -1) - log_softmax(now, -1))).sum(-1)
    last = torch.zeros(7, dtype=torch.float64)
    for few in (2, 20, 119):
        ids = base.topk(few).indices
        one = Given(now, [0] * 7, [7])
        kept = {"spread": buckets(base, ids), "buckets": ids}
        found = BaseDivergence("retain").tokens(one, kept, {})
        assert bool((found <= exact + 1e-9).all())
        assert bool((found >= last - 1e-9).all())
        last = found.detach()
    assert torch.allclose(last, exact)


@pytest.mark.parametrize("beta", [1.0, 3.0, 5.0])
def test_undial_lowers_the_true_token_alone_and_it_stays_first_below_the_margin(beta: float) -> None:
    """p_base = (0.9, 0.06, 0.04): margin ln 15 = 2.7. q ~ (0.9 e^-beta, 0.06, 0.04); the gradient in the logits is p - q."""
    base = {"spread": _chances([0.9, 0.06, 0.04]), "buckets": torch.empty(0, dtype=torch.int64)}
    now = Given(_chances([0.2, 0.3, 0.5]), [0], [1])
    loss = Distill("forget", beta).tokens(now, base, {})
    q = [0.9 * math.exp(-beta), 0.06, 0.04]
    q = [one / sum(q) for one in q]
    assert loss.tolist() == pytest.approx([-sum(a * math.log(b) for a, b in zip(q, (0.2, 0.3, 0.5), strict=True))])
    assert now.slope(loss).tolist()[0] == pytest.approx([0.2 - q[0], 0.3 - q[1], 0.5 - q[2]])
    assert (q[0] == max(q)) == (beta < math.log(0.9 / 0.06))


def test_undial_of_the_likeliest_tokens_is_that_of_all_where_the_others_have_no_share() -> None:
    logits = torch.full((2, V), -60.0, dtype=torch.float64)
    logits[:, :4] = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 0.0, 2.0]])
    target = [2, 1]
    whole = {"spread": log_softmax(logits, -1), "buckets": torch.empty(0, dtype=torch.int64)}
    # the true token stands first
    ids = torch.tensor([[2, 0, 1, 3], [1, 0, 2, 3]])
    few = {"spread": buckets(logits, ids), "buckets": ids}
    now = Given(logits.flip(-1) * 0.1 + logits, target, [2])
    one, other = (Distill("forget", 4.0).tokens(now, kept, {}) for kept in (whole, few))
    assert torch.allclose(one, other, atol=1e-6)


def test_weighted_ascent_by_hand_and_its_weights_have_no_gradient() -> None:
    """One row of p = 0.5 and p = 0.8, another of p = 0.1; WGA beta 2: -(0.25 ln 2 + 0.64 ln 1.25) / 2 and -0.01 ln 10."""
    now = Given(_chances([0.5, 0.5], [0.2, 0.8], [0.9, 0.1]), [0, 1, 1], [2, 1])
    part = Part(NLL("forget", sign=-1.0), weighters=(Likely(2.0),))
    loss = part.losses(now, {}, {})
    assert loss.tolist() == pytest.approx([-(0.25 * math.log(2) + 0.64 * math.log(1.25)) / 2, -0.01 * math.log(10)])
    slope = now.slope(loss)
    # -w (p - onehot) / tokens of the row
    assert slope[0].tolist() == pytest.approx([-0.25 * (0.5 - 1) / 2, -0.25 * 0.5 / 2])
    assert slope[2].tolist() == pytest.approx([-0.01 * 0.9, -0.01 * (0.1 - 1)])
    plain = Part(NLL("forget", sign=-1.0)).losses(now, {}, {})
    flat = Part(NLL("forget", sign=-1.0), weighters=(Likely(0.0),)).losses(now, {}, {})
    assert torch.equal(plain, flat)


@pytest.mark.parametrize(("up", "down"), [(5.0, 0.1), (5.0, 1.0), (2.0, 1.0)])
def test_importance_weights_peak_where_both_powers_balance(up: float, down: float) -> None:
    p = torch.linspace(0.001, 0.999, 1997, dtype=torch.float64)
    now = Given(torch.stack([p, 1 - p], -1).log(), [0] * len(p), [len(p)])
    weights = Likely(up, down).weights(now, {}, {})
    assert not weights.requires_grad
    assert float(p[weights.argmax()]) == pytest.approx(up / (up + down), abs=1e-3)
    at = up / (up + down)
    assert float(weights.max()) == pytest.approx(at**up * (1 - at) ** down, rel=1e-3)


def test_a_likelihood_of_whole_answers_takes_no_weights_on_tokens() -> None:
    with pytest.raises(TypeError, match="tokens"):
        Part(Likelihood("forget"), weighters=(Likely(1.0),))


def test_ceu_pushes_the_true_token_alone_and_skips_the_first() -> None:
    """p = (0.6, 0.3, 0.1), true 0: q = (0, 0.75, 0.25), CE = -(0.75 ln 0.3 + 0.25 ln 0.1), gradient p - q of L1 norm 1.2."""
    now = Given(_chances([0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]), [0, 0, 1], [2, 1])
    loss = Otherwise("forget", 1).losses(now, {}, {})
    assert loss.tolist() == pytest.approx([-(0.75 * math.log(0.3) + 0.25 * math.log(0.1)), 0.0])
    slope = now.slope(loss)
    assert slope.tolist()[0] == [0.0] * 3
    assert slope.tolist()[1] == pytest.approx([0.6, 0.3 - 0.75, 0.1 - 0.25])
    assert float(slope[1].abs().sum()) == pytest.approx(2 * 0.6)
    every = Otherwise("forget", 0).losses(now, {}, {})
    assert float(every[1].detach()) == pytest.approx(-(0.4 * math.log(0.2) + 0.6 * math.log(0.3)))


@pytest.mark.parametrize("name", list(DIVERGENCES))
def test_flat_conjugates_are_legendre_transforms(name: str) -> None:
    """f*(g*(v)) = sup over u of u g*(v) - f(u), the supremum over a fine grid; and g* rises, so templates are learnt."""
    one = DIVERGENCES[name]
    u = torch.cat([torch.linspace(1e-6, 8, 400_001, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])
    f = one.f(u)
    for v in torch.linspace(0, 1, 11, dtype=torch.float64):
        sup = float((u * one.g(v) - f).max())
        assert float(one.conjugate_of_g(v)) == pytest.approx(sup, abs=1e-6)
    g = one.g(torch.linspace(0, 1, 101, dtype=torch.float64))
    conjugate = one.conjugate_of_g(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert bool((g.diff() > 0).all())
    assert bool((conjugate.diff() > 0).all())


def test_flat_of_a_row_is_of_its_mean_probability() -> None:
    """P = (0.5 + 0.8) / 2 for the first row; Pearson: -P for a template, P^2 / 4 + P for a forgotten answer."""
    now = Given(_chances([0.5, 0.5], [0.2, 0.8], [0.9, 0.1]), [0, 1, 1], [2, 1])
    up = Likelihood("refusal", "pearson").losses(now, {}, {})
    down = Likelihood("forget", "pearson", "forget").losses(now, {}, {})
    assert up.tolist() == pytest.approx([-0.65, -0.1])
    assert down.tolist() == pytest.approx([0.65**2 / 4 + 0.65, 0.1**2 / 4 + 0.1])


def test_flattened_logits_by_hand() -> None:
    """z = (3, 1, -1): (3 - 1)^2 = 4, gradient 2 * 2 * (e_0 - 1/3); alike logits cost nothing."""
    now = Given(torch.tensor([[3.0, 1.0, -1.0], [2.0, 2.0, 2.0]]), [1, 1], [1, 1])
    loss = Flatten("forget").tokens(now, {}, {})
    assert loss.tolist() == pytest.approx([4.0, 0.0])
    assert now.slope(loss)[0].tolist() == pytest.approx([4 * (1 - 1 / 3), -4 / 3, -4 / 3])


# a two-layer model in float64, and rows of unequal lengths


@pytest.fixture(scope="module")
def tiny() -> Reference:
    torch.manual_seed(5)
    # Llama's norms are computed in float32 whatever the model's dtype is
    config = GPT2Config(
        vocab_size=V, n_embd=16, n_inner=24, n_layer=2, n_head=2, n_positions=64, initializer_range=0.25,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).double().eval()
    draw = np.random.default_rng(1)

    def rows(count: int) -> list[Encoded]:
        made = []
        for i in range(count):
            prompt, answer = 2 + i % 4, 1 + (3 * i) % 5
            ids = (*draw.integers(1, V, prompt + answer).tolist(), 0)
            made.append(Encoded(ids, prompt, answer))
        return made

    forget = rows(6)
    refused = [Encoded((*row.ids[: row.prompt], 7, 8, 9, 0)[: row.prompt + 4], row.prompt, 3) for row in forget]
    base = Base("tiny", model, NO_TOKENIZER, Full(model), "")
    made = Reference(base, Pools({"forget": forget, "retain": rows(7), "refusal": refused}))
    made.ensure("alternate", Alternates())
    return made


def _losses(
    made: Reference, name: str, index: Sequence[int], freeze: dict[str, Tensor] | None = None,
    junk: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """part -> (B,) losses of a method's phases. freeze: weights to keep or to be used again; junk: what padding holds."""
    kept = {key: p.detach().clone() for key, p in made.base.scope.own().items()}
    made.base.restore()
    phases = find(Method, name)().phases(dataclasses.replace(FACTS, found=made.ask))
    for phase in phases:
        for role in phase.roles:
            made.ensure(role, phase.sources.get(role))
            made.prepare(role, phase.needs(role), phase.hidden_at(role), 3)
    made.base.scope.put(kept)
    found = {}
    for number, phase in enumerate(phases):
        some = _of_phase(made, phase, index, freeze, junk)
        found |= {f"{number} {label}": losses for label, losses in some.items()}
    return found


def _of_phase(
    made: Reference, phase: Phase, index: Sequence[int], freeze: dict[str, Tensor] | None, junk: int | None
) -> dict[str, Tensor]:
    state: dict[str, Any] = {}
    found = {}
    for label, part in phase.parts.items():
        role = part.term.role
        where = np.asarray(index)
        batch = made.stack.batch(where + made.first[role])
        if junk is not None:
            batch = Batch(
                batch.index, torch.where(batch.attention.bool(), batch.ids, junk), batch.start, batch.stop, batch.length
            )
        forward = Forward(
            [
                (
                    Pass(made.base.model, batch, hidden_at=part.term.hidden_at),
                    np.arange(len(where)),
                    np.arange(len(where)),
                )
            ]
        )
        numbers = made.of(role, part.needs, part.term.hidden_at, where, forward)
        if freeze is not None:
            part = dataclasses.replace(
                part, weighters=tuple(_Frozen(one, freeze, f"{label}{k}") for k, one in enumerate(part.weighters))
            )
        found[label] = part.losses(forward, numbers, state)
    return found


class _Frozen(Weighter):
    """Another weighter's first weights, ever after."""

    def __init__(self, inner: Weighter, kept: dict[str, Tensor], key: str) -> None:
        vars(self).update(level=inner.level, needs=inner.needs)
        self._inner, self._kept, self._key = inner, kept, key

    def weights(self, *args: Any) -> Tensor:
        if self._key not in self._kept:
            self._kept[self._key] = self._inner.weights(*args)
        return self._kept[self._key]


def _shifted(made: Reference, size: float, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: size * torch.randn(p.shape, generator=draw, dtype=torch.float64)
        for name, p in made.base.scope.own().items()
    }


@torch.no_grad()
def _move(made: Reference, by: dict[str, Tensor], share: float) -> None:
    for name, p in made.base.scope.own().items():
        p.add_(by[name] * share)


def _fixed(name: str) -> bool:
    """Whether its targets stand still: one that is the model's own prediction has another slope than gradient (see the test above)."""
    parts = [part for phase in find(Method, name)().phases(TYPICAL) for part in phase.parts.values()]
    return not any(isinstance(part.term, Otherwise) for part in parts)


SLOPES = [name for name in PLAIN if _fixed(name)]


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_are_finite_differences(tiny: Reference, name: str) -> None:
    """Of every part of every method, along a random direction, away from the base model; weights are held where they were."""
    tiny.base.restore()
    away, along = _shifted(tiny, 0.05, 1), _shifted(tiny, 1.0, 2)
    _move(tiny, away, 1.0)
    frozen: dict[str, Tensor] = {}
    index = [0, 3, 4, 1]
    total = sum(some.sum() for some in _losses(tiny, name, index, frozen).values())
    own = tiny.base.scope.own()
    grads = torch.autograd.grad(total, list(own.values()), allow_unused=True)
    slope = sum(float((g * along[n]).sum()) for n, g in zip(own, grads, strict=True) if g is not None)
    step, ends = 1e-5, []
    for sign in (1.0, -1.0):
        _move(tiny, along, sign * step)
        with torch.no_grad():
            ends.append(float(sum(some.sum() for some in _losses(tiny, name, index, frozen).values())))
        _move(tiny, along, -sign * step)
    tiny.base.restore()
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-5, abs=1e-6)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("name", PLAIN)
def test_padding_neighbours_and_their_order_change_nothing(tiny: Reference, name: str) -> None:
    """A row's loss is the same alone, among longer rows, in another order, and whatever stands in its padding."""
    tiny.base.restore()
    _move(tiny, _shifted(tiny, 0.05, 1), 1.0)
    with torch.no_grad():
        whole = _losses(tiny, name, [0, 1, 2, 3, 4, 5])
        order = [4, 0, 5, 2, 1, 3]
        mixed = _losses(tiny, name, order)
        filled = _losses(tiny, name, [0, 1, 2, 3, 4, 5], junk=V - 100)
        for label, losses in whole.items():
            assert torch.allclose(mixed[label], losses[order], atol=1e-9)
            assert torch.equal(filled[label], losses)
        for i in (0, 3):
            alone = _losses(tiny, name, [i])
            assert all(torch.allclose(alone[label][0], whole[label][i], atol=1e-9) for label in whole)
    tiny.base.restore()


def test_a_mean_over_rows_is_of_each_rows_own_mean(tiny: Reference) -> None:
    """RMU's mean: each row counts once, whatever its length (a (b, b) broadcast of sums and counts would mix them).

    Over the positions that predict the answer: from the prompt's last to the last but one."""
    tiny.base.restore()
    where = np.array([0, 4])
    batch = tiny.stack.batch(where)
    tiny.prepare("forget", ("hidden_norm",), (1,), 3)
    term, state = Steer("forget", 1, 2.0, seed=0), dict[str, Any]()
    with torch.no_grad():
        forward = Forward([(Pass(tiny.base.model, batch, hidden_at=(1,)), np.arange(2), np.arange(2))])
        found = term.losses(forward, tiny.of("forget", ("hidden_norm",), (1,), where), state)
        rows = [tiny.pools.rows["forget"][i] for i in where]
        told = [forward.hidden(1)[k, row.prompt - 1 : len(row.ids) - 1] for k, row in enumerate(rows)]
        by_hand = [float(((h - state["target"]) ** 2).sum(1).mean()) / float(state["norm"]) ** 2 for h in told]
    assert len(told[0]) != len(told[1])
    assert found.tolist() == pytest.approx(by_hand)


def test_few_or_all_tokens_kept_say_the_same_where_the_others_have_no_share(
    tiny: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference's buckets: the true token first, each row's own positions, a bound below the exact divergence."""
    tiny.base.restore()
    rows = tiny.pools.rows
    found = []
    for exact, few in ((10**9, V), (0, 40)):
        monkeypatch.setattr(references, "EXACT", exact)
        monkeypatch.setattr(references, "LIKELIEST", few)
        made = Reference(tiny.base, Pools(rows))
        made.prepare("retain", ("spread",), (), 3)
        _move(made, _shifted(made, 0.02, 4), 1.0)
        with torch.no_grad():
            found.append(torch.cat([_kl(made, [i]) for i in (3, 0, 6)] + [_kl(made, [3, 0, 6])]))
        tiny.base.restore()
    assert torch.allclose(found[0][:3], found[0][3:], atol=1e-6)
    assert torch.allclose(found[1][:3], found[1][3:], atol=1e-6)
    assert bool((found[1] <= found[0] + 1e-6).all())
    assert float(found[1].sum()) > 0.3 * float(found[0].sum())


def _kl(made: Reference, index: list[int]) -> Tensor:
    batch = made.stack.batch(np.asarray(index) + made.first["retain"])
    where = np.arange(len(index))
    forward = Forward([(Pass(made.base.model, batch), where, where)])
    numbers = made.of("retain", ("spread",), (), np.asarray(index), forward)
    if numbers["buckets"].numel():
        assert torch.equal(numbers["buckets"][:, 0], forward.target)
    return BaseDivergence("retain").losses(forward, numbers, {})


def test_tokens_of_cut_passes_find_their_rows(tiny: Reference) -> None:
    """`row`, `place`, `target`, `nll` of rows that went through in two passes, with others between."""
    tiny.base.restore()
    stack = Stack(tiny.pools.rows["retain"], "cpu")
    with torch.no_grad():
        first, second = (Pass(tiny.base.model, stack.batch(some)) for some in ([5, 2, 0], [6, 1, 3, 4]))
        # rows drawn as 1, 2, 5, 3: places 0, 1, 2, 3 here
        cut = Forward([(first, np.array([1, 0]), np.array([1, 2])), (second, np.array([1, 2]), np.array([0, 3]))])
        whole = Forward.of(tiny.base.model, stack.batch([1, 2, 5, 3]))
    assert torch.allclose(cut.mean(cut.nll), whole.mean_nll, atol=1e-9)
    assert torch.allclose(cut.sum(cut.logits.square().sum(-1)), whole.sum(whole.logits.square().sum(-1)), atol=1e-6)
    for k in range(4):
        assert cut.target[cut.row == k].tolist() == whole.target[whole.row == k].tolist()
        assert sorted(cut.place[cut.row == k].tolist()) == list(range(int(cut.count[k])))


def test_the_first_token_of_an_answer_counts_and_nothing_after_its_end(tiny: Reference) -> None:
    """PDU's mask in reference code stands one token off: it misses the first and takes one that follows."""
    tiny.base.restore()
    rows = tiny.pools.rows["forget"]
    with torch.no_grad():
        forward = Forward.of(tiny.base.model, tiny.stack.batch(range(len(rows))))
    assert forward.target[forward.place == 0].tolist() == [row.ids[row.prompt] for row in rows]
    assert forward.count.tolist() == [len(row.ids) - row.prompt for row in rows]
    last = forward.place == (forward.count.long() - 1)[forward.row]
    assert forward.target[last].tolist() == [row.ids[-1] for row in rows]


class Sums(Forward):
    """A forward pass whose summed likelihoods are given."""

    def __init__(self, *sums: float) -> None:
        self.sum_nll = torch.tensor(sums, dtype=torch.float64, requires_grad=True)


def test_preference_starts_at_its_value_and_swapping_the_answers_turns_its_gradient() -> None:
    """2 ln 2 / beta at the base (TOFU's code lacks the 2 / beta); there the gradient is -1 on one side and +1 on the other."""
    reference = {"sum_nll": torch.tensor([2.0, 5.0], dtype=torch.float64)}
    slopes = []
    for swapped in (False, True):
        forgotten, winner = Sums(2.0, 5.0), Sums(2.0, 5.0)
        first, second = (winner, forgotten) if swapped else (forgotten, winner)
        state: dict[str, Any] = {}
        Remember("forget").losses(first, reference, state)
        loss = Preferred("refusal", 0.25).losses(second, reference, state)
        assert loss.tolist() == pytest.approx([2 * math.log(2) / 0.25] * 2)
        slopes.append(torch.autograd.grad(loss.sum(), [forgotten.sum_nll, winner.sum_nll]))
    assert slopes[0][0].tolist() == pytest.approx([-1.0, -1.0])
    assert slopes[0][1].tolist() == pytest.approx([1.0, 1.0])
    assert all(torch.allclose(one, -other) for one, other in zip(*slopes, strict=True))


def test_weights_of_the_two_sides_are_the_authors_and_no_base_model_is_asked_for_nothing() -> None:
    """SatImp: 1 for forgetting, 0.1 for retaining (OpenUnlearning's configuration has them reversed)."""
    parts = find(Method, "satimp")().phases(FACTS)[0].parts
    assert (parts["forget"].weight, parts["retain"].weight) == (1.0, 0.1)
    for name in ("wga", "satimp", "simnpo", "ceu", "grad_diff"):
        assert find(Method, name).needs() == ("retain rows",)
