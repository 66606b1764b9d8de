"""Gradients of terms by finite differences, and what no loss may depend on: neighbours, padding, order."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from froc.methods.ceu import Otherwise
from froc.methods.kl_min import BaseDivergence
from froc.methods.rmu import Steer
from froc.models.batches import Stack
from froc.models.forward import Forward, Pass
from froc.plugins import find
from froc.training import token_distribution
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, BaseStatistics, TrainingRows
from froc.training.method import Method
from tests.methods.part_losses import losses_of, move, shifted
from tests.methods.test_terms import PLAIN, V


def _fixed(name: str) -> bool:
    """Whether its targets stand still: one that is the model's own prediction has another slope than gradient (see the test above)."""
    parts = [part for phase in find(Method, name)().phases(PLACEHOLDER_CONTEXT) for part in phase.parts.values()]
    return not any(isinstance(part.term, Otherwise) for part in parts)


SLOPES = [name for name in PLAIN if _fixed(name)]


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_are_finite_differences(tiny: BaseStatistics, name: str) -> None:
    """Of every part of every method, along a random direction, away from the base model; weights are held where they were."""
    tiny.base.restore()
    away, along = shifted(tiny, 0.05, 1), shifted(tiny, 1.0, 2)
    move(tiny, away, 1.0)
    frozen: dict[str, Tensor] = {}
    index = [0, 3, 4, 1]
    total = torch.stack([losses.sum() for losses in losses_of(tiny, name, index, frozen).values()]).sum()
    own = tiny.base.trainable.parameters()
    grads = torch.autograd.grad(total, list(own.values()), allow_unused=True)
    slope = sum(float((g * along[n]).sum()) for n, g in zip(own, grads, strict=True) if g is not None)
    step, ends = 1e-5, []
    for sign in (1.0, -1.0):
        move(tiny, along, sign * step)
        with torch.no_grad():
            ends.append(float(sum(losses.sum() for losses in losses_of(tiny, name, index, frozen).values())))
        move(tiny, along, -sign * step)
    tiny.base.restore()
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-5, abs=1e-6)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("name", PLAIN)
def test_padding_neighbours_and_their_order_change_nothing(tiny: BaseStatistics, name: str) -> None:
    """A row's loss is the same alone, among longer rows, in another order, and whatever stands in its padding."""
    tiny.base.restore()
    move(tiny, shifted(tiny, 0.05, 1), 1.0)
    # with gradients: a method may train a teacher for its numbers
    whole = losses_of(tiny, name, [0, 1, 2, 3, 4, 5])
    order = [4, 0, 5, 2, 1, 3]
    mixed = losses_of(tiny, name, order)
    filled = losses_of(tiny, name, [0, 1, 2, 3, 4, 5], junk=V - 100)
    for label, losses in whole.items():
        assert torch.allclose(mixed[label], losses[order], atol=1e-9)
        assert torch.equal(filled[label], losses)
    for i in (0, 3):
        alone = losses_of(tiny, name, [i])
        assert all(torch.allclose(alone[label][0], whole[label][i], atol=1e-9) for label in whole)
    tiny.base.restore()


def test_a_mean_over_rows_is_of_each_rows_own_mean(tiny: BaseStatistics) -> None:
    """RMU's mean: each row counts once, whatever its length (a (b, b) broadcast of sums and counts would mix them).

    Over the positions that predict the answer: from the prompt's last to the last but one."""
    tiny.base.restore()
    where = np.array([0, 4])
    batch = tiny.stack.batch(where)
    tiny.prepare("forget", ("hidden_norm",), (1,), 3)
    term, state = Steer("forget", 1, 2.0, seed=0), dict[str, Any]()
    with torch.no_grad():
        forward = Forward([(Pass(tiny.base.model, batch, hidden_at=(1,)), np.arange(2), np.arange(2))])
        result = term.losses(forward, tiny.lookup("forget", ("hidden_norm",), (1,), where), state)
        rows = [tiny.pools.rows["forget"][i] for i in where]
        states = [forward.hidden(1)[k, row.prompt - 1 : len(row.ids) - 1] for k, row in enumerate(rows)]
        by_hand = [float(((h - state["target"]) ** 2).sum(1).mean()) / float(state["norm"]) ** 2 for h in states]
    assert len(states[0]) != len(states[1])
    assert result.tolist() == pytest.approx(by_hand)


def test_few_or_all_tokens_kept_say_the_same_where_the_others_have_no_share(
    tiny: BaseStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference's buckets: the true token first, each row's own positions, a bound below the exact divergence."""
    tiny.base.restore()
    rows = tiny.pools.rows
    result = []
    for exact, few in ((10**9, V), (0, 40)):
        monkeypatch.setattr(token_distribution, "EXACT", exact)
        monkeypatch.setattr(token_distribution, "LIKELIEST", few)
        made = BaseStatistics(tiny.base, TrainingRows(rows))
        made.prepare("retain", ("token_distribution",), (), 3)
        move(made, shifted(made, 0.02, 4), 1.0)
        with torch.no_grad():
            result.append(torch.cat([_kl(made, [i]) for i in (3, 0, 6)] + [_kl(made, [3, 0, 6])]))
        tiny.base.restore()
    assert torch.allclose(result[0][:3], result[0][3:], atol=1e-6)
    assert torch.allclose(result[1][:3], result[1][3:], atol=1e-6)
    assert bool((result[1] <= result[0] + 1e-6).all())
    assert float(result[1].sum()) > 0.3 * float(result[0].sum())


def _kl(made: BaseStatistics, index: list[int]) -> Tensor:
    batch = made.stack.batch(np.asarray(index) + made.offsets["retain"])
    where = np.arange(len(index))
    forward = Forward([(Pass(made.base.model, batch), where, where)])
    numbers = made.lookup("retain", ("token_distribution",), (), np.asarray(index), forward)
    if numbers["buckets"].numel():
        assert torch.equal(numbers["buckets"][:, 0], forward.target)
    return BaseDivergence("retain").losses(forward, numbers, {})


def test_tokens_of_cut_passes_find_their_rows(tiny: BaseStatistics) -> None:
    """`row`, `place`, `target`, `nll` of rows that went through in two passes, with others between."""
    tiny.base.restore()
    stack = Stack(tiny.pools.rows["retain"], "cpu")
    with torch.no_grad():
        first, second = (Pass(tiny.base.model, stack.batch(places)) for places in ([5, 2, 0], [6, 1, 3, 4]))
        # rows drawn as 1, 2, 5, 3: places 0, 1, 2, 3 here
        cut = Forward([(first, np.array([1, 0]), np.array([1, 2])), (second, np.array([1, 2]), np.array([0, 3]))])
        whole = Forward.of(tiny.base.model, stack.batch([1, 2, 5, 3]))
    assert torch.allclose(cut.mean(cut.nll), whole.mean_nll, atol=1e-9)
    assert torch.allclose(cut.sum(cut.logits.square().sum(-1)), whole.sum(whole.logits.square().sum(-1)), atol=1e-6)
    for k in range(4):
        assert cut.target[cut.row == k].tolist() == whole.target[whole.row == k].tolist()
        assert sorted(cut.place[cut.row == k].tolist()) == list(range(int(cut.count[k])))


def test_the_first_token_of_an_answer_counts_and_nothing_after_its_end(tiny: BaseStatistics) -> None:
    """PDU's mask in reference code stands one token off: it misses the first and takes one that follows."""
    tiny.base.restore()
    rows = tiny.pools.rows["forget"]
    with torch.no_grad():
        forward = Forward.of(tiny.base.model, tiny.stack.batch(range(len(rows))))
    assert forward.target[forward.place == 0].tolist() == [row.ids[row.prompt] for row in rows]
    assert forward.count.tolist() == [len(row.ids) - row.prompt for row in rows]
    last = forward.place == (forward.count.long() - 1)[forward.row]
    assert forward.target[last].tolist() == [row.ids[-1] for row in rows]
