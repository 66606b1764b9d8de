"""jensun, tnpo and whp by hand: their tokens' targets, weights and labels, and what tells each from its neighbours."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from froc.methods._teacher import Rise
from froc.methods.jensun import BaseLikeness, Refusals, TowardsRefusal
from froc.methods.tnpo import TNPO, TokenPreference
from froc.methods.whp import Generic
from froc.models.likelihood import buckets
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseStatistics, MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.terms import NLL, WeightedTerm
from tests.methods.test_terms import FixedForward
from tests.training.small import nll

ALL = torch.empty(0, dtype=torch.int64)


def _logits(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def _js(p: list[float], q: list[float]) -> float:
    """By the definition, term by term; 0 ln 0 is 0."""
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return sum(a * math.log(a / m) / 2 for r in (p, q) for a, m in zip(r, middle, strict=True) if a)


# jensun


def test_a_refusals_tokens_are_repeated_until_the_answers_end_and_the_divergence_is_that_of_whole_distributions() -> (
    None
):
    """Two rows of three and two positions; the first refuses with tokens 2 and 0 in turn, the second with token 1."""
    rows = [[0.5, 0.25, 0.25], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4], [0.8, 0.1, 0.1]]
    now = FixedForward(_logits(*rows), [0, 1, 0, 2, 0], [3, 2])
    term = TowardsRefusal("forget", torch.tensor([[2, 0], [1, 0]]), torch.tensor([2, 1]))
    result = term.tokens(now, {"row": torch.tensor([0, 1])}, {})
    one_hot = ([0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0])
    assert result.tolist() == pytest.approx([_js(p, [float(v) for v in e]) for p, e in zip(rows, one_hot, strict=True)])


def test_an_impossible_refusal_costs_ln_2_and_pulls_no_more_where_a_likelihood_would_pull_without_bound() -> None:
    now = FixedForward(torch.tensor([[0.0, -60.0]]), [0], [1])
    term = TowardsRefusal("forget", torch.tensor([[1]]), torch.tensor([1]))
    result = term.tokens(now, {"row": torch.tensor([0])}, {})
    assert result.tolist() == pytest.approx([math.log(2)])
    assert now.slope(result).abs().max() < 1e-20
    certain = FixedForward(torch.tensor([[-60.0, 0.0]]), [0], [1])
    result = term.tokens(certain, {"row": torch.tensor([0])}, {})
    assert result.tolist() == pytest.approx([0.0], abs=1e-12)


def test_the_retain_divergence_is_symmetric_and_bounded_and_none_at_the_base() -> None:
    """(0.5, 0.25, 0.25) against (0.1, 0.1, 0.8): the same both ways, unlike a KL; tokens of probability 0 cost ln 2 at most."""
    p, q = [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]
    for ours, theirs in ((p, q), (q, p)):
        base = {"token_distribution": _logits(theirs), "buckets": ALL}
        result = BaseLikeness("retain").tokens(FixedForward(_logits(ours), [0], [1]), base, {})
        assert result.tolist() == pytest.approx([_js(p, q)])
    apart = {"token_distribution": _logits([1.0, 0.0]), "buckets": ALL}
    now = FixedForward(torch.tensor([[-2e4, 0.0]]), [0], [1])
    result = BaseLikeness("retain").tokens(now, apart, {})
    assert result.tolist() == pytest.approx([math.log(2)])
    assert bool(torch.isfinite(now.slope(result)).all())
    same = FixedForward(_logits(p), [0], [1])
    result = BaseLikeness("retain").tokens(same, {"token_distribution": _logits(p), "buckets": ALL}, {})
    assert result.tolist() == pytest.approx([0.0], abs=1e-15)
    assert same.slope(result).abs().max() < 1e-12


def test_each_row_has_the_tokens_of_its_own_refusal_without_their_end(tiny: BaseStatistics) -> None:
    tokens, count = Refusals().compute(tiny)
    for row, padded, length in zip(tiny.pools.rows["refusal"], tokens, count, strict=True):
        assert tuple(padded[: int(length)].tolist()) == row.answer_ids


# tnpo


def test_a_tokens_weight_is_its_own_and_falls_as_that_token_is_forgotten() -> None:
    """An answer of two tokens, known with 0.9 each: the first is forgotten (0.01), the second is not; NPO gives both one weight.

    beta 2: 2 x 0.01^2 / (0.01^2 + 0.9^2) = 0.000247, and 2 x 0.81 / 1.62 = 1. alpha 1 multiplies by 0.01 and 0.9.
    """
    now = FixedForward(_logits([0.01, 0.99], [0.9, 0.1]), [0, 0], [2])
    base = {"token_distribution": _logits([0.9, 0.1], [0.9, 0.1]), "buckets": ALL}
    weights = TokenPreference(2.0).weights(now, base, {})
    assert weights.tolist() == pytest.approx([2 * 1e-4 / 0.8101, 1.0], rel=1e-4)
    assert not weights.requires_grad
    weighted = TokenPreference(2.0, 1.0).weights(now, base, {})
    assert weighted.tolist() == pytest.approx([2 * 1e-6 / 0.8101, 0.9], rel=1e-4)
    ascent = TokenPreference(0.0).weights(now, base, {})
    assert ascent.tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
    few = {"token_distribution": _logits([0.9, 0.05, 0.05], [0.9, 0.05, 0.05]), "buckets": torch.tensor([[0, 1], [0, 1]])}  # fmt: skip
    assert TokenPreference(2.0).weights(now, few, {}).tolist() == pytest.approx(weights.tolist())


def test_tokens_that_were_never_likely_are_left_alone() -> None:
    """p = p_base = 0.02, beta 4: 2 x 1.6e-7 / (3.2e-7 + 1e-5) = 0.031, not 1."""
    now = FixedForward(_logits([0.02, 0.98]), [0], [1])
    result = TokenPreference(4.0).weights(now, {"token_distribution": _logits([0.02, 0.98]), "buckets": ALL}, {})
    assert result.tolist() == pytest.approx([3.2e-7 / 1.032e-5])


def test_tnpo_is_the_sum_that_its_card_says() -> None:
    (phase,) = TNPO(beta=3.0, alpha=0.5, retain_weight=7.0).phases(MethodContext(17, 8, 9))
    weighed = WeightedTerm(NLL("forget", sign=-1.0), 1.0, (TokenPreference(3.0, 0.5),))
    assert list(phase.parts.values()) == [weighed, WeightedTerm(NLL("retain"), 7.0)]


# whp


def _label(base: Tensor, rise: list[float], alpha: float, ids: Tensor = ALL) -> int:
    """The token whose likelihood is raised: that of the largest slope downwards."""
    now = FixedForward(torch.zeros(1, 4), [0], [1])
    kept = {"row": torch.tensor([0]), "token_distribution": base, "buckets": ids}
    rises = Rise(torch.tensor([0]), torch.tensor([rise], dtype=torch.float64))
    loss = Generic("forget", alpha, rises).tokens(now, kept, {})
    assert loss.tolist() == pytest.approx([math.log(4)])
    slope = now.slope(loss)[0]
    assert slope.sort().values.tolist() == pytest.approx([-0.75, 0.25, 0.25, 0.25])
    return int(slope.argmin())


def test_a_generic_label_is_the_base_models_likeliest_token_after_what_reinforcement_raises() -> None:
    """p = (0.6, 0.3, 0.07, 0.03), the first logit raised by 1: the first stays first while alpha < ln 2; a hard label, no mix."""
    base = _logits([0.6, 0.3, 0.07, 0.03])
    labels = [_label(base, [1.0, 0.0, 0.0, 0.0], alpha) for alpha in (0.0, 0.69, 0.7, 50.0)]
    assert labels == [0, 0, 1, 1]
    assert _label(base, [1.0, 1.0, 0.0, 0.0], 5.0) == 2


def test_the_other_tokens_together_are_no_label() -> None:
    """Tokens 3 and 1 are stored, with 0.3 and 0.1; the rest, together 0.6, cannot be learnt."""
    logits = _logits([0.3, 0.1, 0.3, 0.3])
    ids = torch.tensor([[3, 1]])
    base = buckets(logits, ids)
    assert base.argmax() == 2
    assert _label(base, [0.0, 0.0, 0.0], 1.0, ids) == 3
    assert _label(base, [2.0, 0.0, 0.0], 1.0, ids) == 1


@pytest.mark.parametrize(
    ("name", "params", "forgot", "kept"),
    [("tnpo", {"retain_weight": 3.0}, 1, 0.3), ("tnpo", {"alpha": 1.5, "retain_weight": 3.0}, 0.5, 0.3),
     ("whp", {"alpha": 30.0, "retain_weight": 3.0}, 0.5, 0.5), ("jensun", {"retain_weight": 3.0}, 0.1, 0.5)],
)  # fmt: skip
def test_they_forget_and_hold(
    bench: TrialRunner, name: str, params: dict[str, Any], forgot: float, kept: float
) -> None:
    """From a base model whose mean NLL is below 0.01 on both sides; nats per token."""
    method = make(Method, name, {"lr": 2e-3, "epochs": 3} | params)
    unlearn(bench.base, method, bench.reference, batch=16, seed=1)
    assert nll(bench.reference, "forget") > forgot
    assert nll(bench.reference, "retain") < kept
    bench.base.restore()
