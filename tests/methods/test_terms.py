"""The maths of methods: values worked out here, gradients by finite differences, and what no loss may depend on.

Everything in float64, on rows whose prompts and answers are of unequal lengths: equal ones hide most mistakes.
"""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from froc.methods._dpo import Preferred, Remember
from froc.methods.ceu import Otherwise
from froc.methods.flat import DIVERGENCES, Likelihood
from froc.methods.kl_min import BaseDivergence
from froc.methods.pdu import Flatten
from froc.methods.undial import Distill
from froc.methods.wga import Likely
from froc.models.forward import Forward
from froc.models.likelihood import buckets
from froc.plugins import find, names
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, MethodContext
from froc.training.method import Method, wrappers
from froc.training.terms import NLL, WeightedTerm

V = 120
"""More tokens than 100: a label of -100 that is used as an index would hit one."""
FACTS = MethodContext(2, 16, 3)


def _terms(name: str) -> bool:
    """Whether all that a method does is train on rows of the task: edits have no terms, and rollouts have rows of their own."""
    phases = find(Method, name)().phases(PLACEHOLDER_CONTEXT)
    return bool(phases) and all(phase.parts and phase.rollout is None for phase in phases)


PLAIN = [name for name in names(Method) if name not in wrappers() and _terms(name)]


class FixedForward(Forward):
    """A forward pass whose logits are given; `lengths`: answer tokens of each row."""

    def __init__(self, logits: Tensor, target: Sequence[int], lengths: Sequence[int]) -> None:
        self.logits = logits.double().detach().requires_grad_()
        self.target = torch.tensor(target)
        self.row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        self.place = torch.cat([torch.arange(n) for n in lengths])
        self.count = torch.tensor(lengths, dtype=torch.float64)
        self.nll = -log_softmax(self.logits, -1).gather(-1, self.target[:, None])[:, 0]

    def over_logits(self, function: Any, *others: Tensor) -> Tensor:
        result: Tensor = function(self.logits, *others)
        return result

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
    base = {"token_distribution": _chances([0.5, 0.25, 0.25]), "buckets": torch.empty(0, dtype=torch.int64)}
    for shift in (0.0, 1000.0):
        now = FixedForward(_chances([0.25, 0.25, 0.5]) + shift, [0], [1])
        result = BaseDivergence("retain").tokens(now, base, {})
        assert result.tolist() == pytest.approx([0.25 * math.log(2)])
        assert now.slope(result).tolist()[0] == pytest.approx([0.25 - 0.5, 0.0, 0.5 - 0.25])
    same = FixedForward(_chances([0.5, 0.25, 0.25]), [0], [1])
    result = BaseDivergence("retain").tokens(same, base, {})
    assert result.tolist() == pytest.approx([0.0])
    assert same.slope(result).abs().max() < 1e-12


def test_kl_over_buckets_is_a_lower_bound_that_the_likeliest_tokens_make_tight() -> None:
    draw = torch.Generator().manual_seed(0)
    base, now = (3 * torch.randn(7, V, generator=draw, dtype=torch.float64) for _ in range(2))
    exact = (softmax(base, -1) * (log_softmax(base, -1) - log_softmax(now, -1))).sum(-1)
    last = torch.zeros(7, dtype=torch.float64)
    for few in (2, 20, 119):
        ids = base.topk(few).indices
        forward = FixedForward(now, [0] * 7, [7])
        kept = {"token_distribution": buckets(base, ids), "buckets": ids}
        result = BaseDivergence("retain").tokens(forward, kept, {})
        assert bool((result <= exact + 1e-9).all())
        assert bool((result >= last - 1e-9).all())
        last = result.detach()
    assert torch.allclose(last, exact)


@pytest.mark.parametrize("beta", [1.0, 3.0, 5.0])
def test_undial_lowers_the_true_token_alone_and_it_stays_first_below_the_margin(beta: float) -> None:
    """p_base = (0.9, 0.06, 0.04): margin ln 15 = 2.7. q ~ (0.9 e^-beta, 0.06, 0.04); the gradient in the logits is p - q."""
    base = {"token_distribution": _chances([0.9, 0.06, 0.04]), "buckets": torch.empty(0, dtype=torch.int64)}
    now = FixedForward(_chances([0.2, 0.3, 0.5]), [0], [1])
    loss = Distill("forget", beta).tokens(now, base, {})
    q = [0.9 * math.exp(-beta), 0.06, 0.04]
    q = [chance / sum(q) for chance in q]
    assert loss.tolist() == pytest.approx([-sum(a * math.log(b) for a, b in zip(q, (0.2, 0.3, 0.5), strict=True))])
    assert now.slope(loss).tolist()[0] == pytest.approx([0.2 - q[0], 0.3 - q[1], 0.5 - q[2]])
    assert (q[0] == max(q)) == (beta < math.log(0.9 / 0.06))


def test_undial_of_the_likeliest_tokens_is_that_of_all_where_the_others_have_no_share() -> None:
    logits = torch.full((2, V), -60.0, dtype=torch.float64)
    logits[:, :4] = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 0.0, 2.0]])
    target = [2, 1]
    whole = {"token_distribution": log_softmax(logits, -1), "buckets": torch.empty(0, dtype=torch.int64)}
    # the true token stands first
    ids = torch.tensor([[2, 0, 1, 3], [1, 0, 2, 3]])
    few = {"token_distribution": buckets(logits, ids), "buckets": ids}
    now = FixedForward(logits.flip(-1) * 0.1 + logits, target, [2])
    all_tokens, likeliest = (Distill("forget", 4.0).tokens(now, kept, {}) for kept in (whole, few))
    assert torch.allclose(all_tokens, likeliest, atol=1e-6)


def test_weighted_ascent_by_hand_and_its_weights_have_no_gradient() -> None:
    """One row of p = 0.5 and p = 0.8, another of p = 0.1; WGA beta 2: -(0.25 ln 2 + 0.64 ln 1.25) / 2 and -0.01 ln 10."""
    now = FixedForward(_chances([0.5, 0.5], [0.2, 0.8], [0.9, 0.1]), [0, 1, 1], [2, 1])
    part = WeightedTerm(NLL("forget", sign=-1.0), weighters=(Likely(2.0),))
    loss = part.losses(now, {}, {})
    assert loss.tolist() == pytest.approx([-(0.25 * math.log(2) + 0.64 * math.log(1.25)) / 2, -0.01 * math.log(10)])
    slope = now.slope(loss)
    # -w (p - onehot) / tokens of the row
    assert slope[0].tolist() == pytest.approx([-0.25 * (0.5 - 1) / 2, -0.25 * 0.5 / 2])
    assert slope[2].tolist() == pytest.approx([-0.01 * 0.9, -0.01 * (0.1 - 1)])
    plain = WeightedTerm(NLL("forget", sign=-1.0)).losses(now, {}, {})
    flat = WeightedTerm(NLL("forget", sign=-1.0), weighters=(Likely(0.0),)).losses(now, {}, {})
    assert torch.equal(plain, flat)


@pytest.mark.parametrize(("up", "down"), [(5.0, 0.1), (5.0, 1.0), (2.0, 1.0)])
def test_importance_weights_peak_where_both_powers_balance(up: float, down: float) -> None:
    p = torch.linspace(0.001, 0.999, 1997, dtype=torch.float64)
    now = FixedForward(torch.stack([p, 1 - p], -1).log(), [0] * len(p), [len(p)])
    weights = Likely(up, down).weights(now, {}, {})
    assert not weights.requires_grad
    assert float(p[weights.argmax()]) == pytest.approx(up / (up + down), abs=1e-3)
    at = up / (up + down)
    assert float(weights.max()) == pytest.approx(at**up * (1 - at) ** down, rel=1e-3)


def test_a_likelihood_of_whole_answers_takes_no_weights_on_tokens() -> None:
    with pytest.raises(TypeError, match="tokens"):
        WeightedTerm(Likelihood("forget"), weighters=(Likely(1.0),))


def test_ceu_pushes_the_true_token_alone_and_skips_the_first() -> None:
    """p = (0.6, 0.3, 0.1), true 0: q = (0, 0.75, 0.25), CE = -(0.75 ln 0.3 + 0.25 ln 0.1), gradient p - q of L1 norm 1.2."""
    now = FixedForward(_chances([0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]), [0, 0, 1], [2, 1])
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
    divergence = DIVERGENCES[name]
    u = torch.cat([torch.linspace(1e-6, 8, 400_001, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])
    f = divergence.f(u)
    for v in torch.linspace(0, 1, 11, dtype=torch.float64):
        sup = float((u * divergence.g(v) - f).max())
        assert float(divergence.conjugate_of_g(v)) == pytest.approx(sup, abs=1e-6)
    g = divergence.g(torch.linspace(0, 1, 101, dtype=torch.float64))
    conjugate = divergence.conjugate_of_g(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert bool((g.diff() > 0).all())
    assert bool((conjugate.diff() > 0).all())


def test_flat_of_a_row_is_of_its_mean_probability() -> None:
    """P = (0.5 + 0.8) / 2 for the first row; Pearson: -P for a template, P^2 / 4 + P for a forgotten answer."""
    now = FixedForward(_chances([0.5, 0.5], [0.2, 0.8], [0.9, 0.1]), [0, 1, 1], [2, 1])
    up = Likelihood("refusal", "pearson").losses(now, {}, {})
    down = Likelihood("forget", "pearson", "forget").losses(now, {}, {})
    assert up.tolist() == pytest.approx([-0.65, -0.1])
    assert down.tolist() == pytest.approx([0.65**2 / 4 + 0.65, 0.1**2 / 4 + 0.1])


def test_flattened_logits_by_hand() -> None:
    """z = (3, 1, -1): (3 - 1)^2 = 4, gradient 2 * 2 * (e_0 - 1/3); alike logits cost nothing."""
    now = FixedForward(torch.tensor([[3.0, 1.0, -1.0], [2.0, 2.0, 2.0]]), [1, 1], [1, 1])
    loss = Flatten("forget").tokens(now, {}, {})
    assert loss.tolist() == pytest.approx([4.0, 0.0])
    assert now.slope(loss)[0].tolist() == pytest.approx([4 * (1 - 1 / 3), -4 / 3, -4 / 3])


# a two-layer model in float64, and rows of unequal lengths


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
    assert all(torch.allclose(slope, -swapped_slope) for slope, swapped_slope in zip(*slopes, strict=True))


def test_weights_of_the_two_sides_are_the_authors_and_no_base_model_is_asked_for_nothing() -> None:
    """SatImp: 1 for forgetting, 0.1 for retaining (OpenUnlearning's configuration has them reversed)."""
    parts = find(Method, "satimp")().phases(FACTS)[0].parts
    assert (parts["forget"].weight, parts["retain"].weight) == (1.0, 0.1)
    for name in ("wga", "satimp", "simnpo", "ceu", "grad_diff"):
        assert find(Method, name).needs() == ("retain rows",)
