"""RULE: answers that a model draws, what they are worth, and what is learnt from them."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from froc.errors import InputError
from froc.methods import rule as module
from froc.methods._likeness import Directions
from froc.methods.rule import BOUNDARY, Answers, Policy, advantages, likelihoods, mentions, nearest, refused, rewards
from froc.models import generation
from froc.models.base import wrap
from froc.models.batches import Encoded
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.models.trainable import Weights
from froc.plugins import find, make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, BaseStatistics, method_context
from froc.training.components import Rollout, StepContext
from froc.training.loop import train_pack, unlearn
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.run import Run
from froc.training.schedule import TrainingLength
from froc.training.terms import NLL, WeightedTerm
from tests.training.small import same
from tests.training.test_components import Made

# what is drawn


@pytest.mark.parametrize("train", ["full", "layers:last=1", "lora:rank=2"])
@pytest.mark.parametrize("half", [False, True])
def test_the_divergence_is_from_the_parameters_at_the_first_draw(bench: TrialRunner, train: str, half: bool) -> None:
    """Later draws read likelihoods under them, and put the parameters of now back bit for bit."""
    bench.base.restore()
    base = wrap("copy", copy.deepcopy(bench.base.model), bench.base.tokenizer, train)
    rows = bench.reference.pools.rows["forget"][:8]
    # one region of autocast: within it, what was cast once is not cast again
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        step = StepContext(BaseStatistics(base, bench.reference.pools), base.trainable.parameters(), {}, 16, 1, 0)
        start = likelihoods(base.model, rows)
        assert torch.equal(Answers(4, ()).steered_likelihoods(step, rows), start)
        with torch.no_grad():
            for parameter in base.trainable.parameters().values():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        learnt = base.trainable.snapshot()
        torch.clear_autocast_cache()
        now = likelihoods(base.model, rows)
        assert torch.equal(Answers(4, ()).steered_likelihoods(step, rows), start)
        assert torch.equal(likelihoods(base.model, rows), now)
        assert not torch.equal(now, start)
    assert same(learnt, base.trainable.snapshot())


# what it is worth


def test_an_answer_refuses_where_half_of_it_and_of_a_refusal_agree_in_order() -> None:
    """Refusal 1 2 3 4. Of 1 9 3 9, two of 4 and 4 tokens: F1 4/8. Of 1 9 3 9 9, 4/9; of 3 1, one in order: 2/6."""
    answers = [(1, 2, 3, 4), (1, 9, 3, 9), (1, 9, 3, 9, 9), (3, 1), (), (8,)]
    rows = [Encoded((7, 7, *answer, 0), 2, len(answer)) for answer in answers]
    refusals = [Encoded((5, 1, 2, 3, 4, 0), 1, 4), Encoded((5, 8, 0), 1, 1)]
    assert refused(rows, refusals).tolist() == [True, True, False, False, False, True]


def test_rewards_of_both_kinds_of_questions() -> None:
    """Columns: refuses and names the target, refuses, names it, neither."""
    refusing, named = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert rewards(refusing, named, np.zeros(4, dtype=bool)).tolist() == [0.5, 0.25, 0.0, 0.0]
    assert rewards(refusing, named, np.ones(4, dtype=bool)).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_name_counts_as_whole_words() -> None:
    assert mentions("Sorry, I know no Ada Byron!", "ada byron")
    assert not mentions("Sorry, Adam Byron is unknown.", "Ada")
    assert not mentions("anything", "")


def test_advantages_are_standard_scores_within_each_question() -> None:
    """1, 0, 0, 0 has mean 1/4 and unbiased deviation 1/2: scores 3/2 and -1/2. Where all agree, or are alone, 0."""
    worth, group = np.array([1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0]), np.array([0, 0, 0, 0, 1, 1, 1, 2])
    assert advantages(worth, group).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0])
    assert advantages(worth, group)[4:].tolist() == [0.0] * 4


def test_boundary_rows_are_those_most_alike() -> None:
    forget = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    retain = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.8, 0.6], [0.0, -1.0], [1.0, 0.0]])
    # largest cosines: 0.8, -0.6, 0.96, 0, 1
    assert nearest({"forget": forget, "retain": retain}) == (2, 4)
    assert nearest({"forget": forget, "retain": retain[:1]}) == (0,)
    assert nearest({"forget": forget, "retain": retain[:0]}) == ()


# what is learnt from it


class FixedForward(Forward):
    """A pass over two rows, of two tokens and one, whose probabilities are given."""

    def __init__(self, *chances: float) -> None:
        self.row, self.place = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
        self.nll = -torch.tensor(chances, dtype=torch.float64).log()
        self.nll.requires_grad_()


def _numbers(advantage: Sequence[float], old: Sequence[float], steered: Sequence[float]) -> dict[str, Tensor]:
    def put(chances: Sequence[float]) -> Tensor:
        return torch.tensor([[chances[0], chances[1]], [chances[2], 1.0]], dtype=torch.float64).log()

    return {"advantage": torch.tensor(advantage, dtype=torch.float64), "old": put(old), "steered": put(steered)}


def _slope(loss: Tensor, now: FixedForward) -> list[float]:
    (result,) = torch.autograd.grad(loss.sum(), [now.nll])
    return [float(entry) for entry in result]


def test_the_clipped_policy_term_by_hand() -> None:
    """Ratios 0.6/0.4 = 1.5, 0.3/0.3 = 1 and 0.2/0.4 = 0.5. A = 2: 1.3 x 2, 1 x 2. A = -1: of -0.5 and -0.8 the smaller.

    d loss / d nll = r A where nothing is clipped, and 0 where it is.
    """
    now, term = FixedForward(0.6, 0.3, 0.2), Policy("rollout", kl=0.0)
    loss = term.tokens(now, _numbers([2, -1], [0.4, 0.3, 0.4], [0.1, 0.1, 0.1]), {})
    assert loss.tolist() == pytest.approx([-2.6, -2.0, 0.8])
    assert _slope(loss, now) == pytest.approx([0.0, 2.0, 0.0])
    turned = term.tokens(now, _numbers([-2, 1], [0.4, 0.3, 0.4], [0.1, 0.1, 0.1]), {})
    assert turned.tolist() == pytest.approx([3.0, 2.0, -0.5])
    assert _slope(turned, now) == pytest.approx([-3.0, -2.0, 0.5])


def test_a_bad_answers_token_loses_at_most_three_advantages() -> None:
    """A ratio of 6 (dual clip): 3 x 2 where A = -2, without a slope; where A = 2, 1.3 x 2 as for any ratio above 1.3."""
    now, term = FixedForward(0.6, 0.3, 0.2), Policy("rollout", kl=0.0)
    bad = term.tokens(now, _numbers([-2, 0], [0.1, 0.3, 0.4], [0.1, 0.1, 0.1]), {})
    assert bad.tolist() == pytest.approx([6.0, 2.0, 0.0])
    assert _slope(bad, now) == pytest.approx([0.0, -2.0, 0.0])
    good = term.tokens(now, _numbers([2, 0], [0.1, 0.3, 0.4], [0.1, 0.1, 0.1]), {})
    assert good.tolist() == pytest.approx([-2.6, -2.0, 0.0])


def test_rows_count_by_their_tokens() -> None:
    """Rows of two tokens and one: their mean after weighting is the mean over the three tokens."""
    now, term = FixedForward(0.6, 0.3, 0.2), Policy("rollout", kl=0.0)
    now.count, now._back = torch.tensor([2.0, 1.0]), np.arange(2)
    numbers = _numbers([2, -1], [0.6, 0.3, 0.2], [0.1, 0.1, 0.1]) | {"share": torch.tensor([4 / 3, 2 / 3])}
    assert term.losses(now, numbers, {}).mean().item() == pytest.approx((-2 - 2 + 1) / 3)


def test_the_divergence_by_hand() -> None:
    """e^d - d - 1 with e^d = p_steered / p: 1/2, 1 and 3, so 1/2 + ln 2 - 1, 0 and 2 - ln 3; its slope in NLL is e^d - 1.

    At p_steered / p = 30 it is 30 - ln 30 - 1 = 25.6: more than 10 counts as 10, without a slope.
    """
    now = FixedForward(0.6, 0.3, 0.2)
    loss = Policy("rollout", kl=0.5).tokens(now, _numbers([0, 0], [0.6, 0.3, 0.2], [0.3, 0.3, 0.6]), {})
    assert loss.tolist() == pytest.approx([0.5 * (math.log(2) - 0.5), 0.0, 0.5 * (2 - math.log(3))])
    assert _slope(loss, now) == pytest.approx([0.5 * -0.5, 0.0, 0.5 * 2])
    far = FixedForward(0.02, 0.3, 0.2)
    loss = Policy("rollout", kl=0.5).tokens(far, _numbers([0, 0], [0.02, 0.3, 0.2], [0.6, 0.3, 0.2]), {})
    assert loss.tolist() == pytest.approx([5.0, 0.0, 0.0])
    assert _slope(loss, far) == pytest.approx([0.0, 0.0, 0.0])


def _ground(bench: TrialRunner, seed: int = 1, step: int = 0) -> StepContext:
    return StepContext(bench.reference, bench.base.trainable.parameters(), {}, 16, seed, step)


def test_a_draw_asks_both_kinds_and_says_what_its_answers_are_worth(bench: TrialRunner) -> None:
    bench.base.restore()
    with torch.no_grad():
        for parameter in bench.base.trainable.parameters().values():
            parameter.mul_(0.9)
    learnt, rows = bench.base.trainable.snapshot(), bench.reference.pools.rows
    drawn = Answers(4, (3, 5, 8))
    result, numbers = drawn.draw(_ground(bench), 30)
    again, repeated = drawn.draw(_ground(bench), 30)
    assert result == again
    assert all(torch.equal(numbers[name], repeated[name]) for name in numbers)
    assert drawn.draw(_ground(bench, step=2), 30)[0] != result
    assert drawn.draw(_ground(bench, seed=2), 30)[0] != result
    assert len(result) == len(numbers["advantage"]) == 30
    prompts = [entry.ids[: entry.prompt] for entry in result]
    assert all(len(set(prompts[k : k + 4])) == 1 for k in range(0, 30, 4))
    outside = [rows["retain"][k].ids[: rows["retain"][k].prompt] for k in (3, 5, 8)]
    inside = [row.ids[: row.prompt] for row in rows["forget"]]
    assert all(prompt in outside or prompt in inside for prompt in prompts)
    # two in five of eight questions, rounded by chance
    assert sum(prompt in outside for prompt in prompts[::4]) in (int(8 * BOUNDARY), int(8 * BOUNDARY) + 1)
    assert torch.equal(numbers["old"], likelihoods(bench.base.model, result))
    assert same(learnt, bench.base.trainable.snapshot())
    # at the first draw the steered model is the model itself
    assert torch.equal(numbers["steered"], numbers["old"])
    tokens = torch.tensor([len(entry.ids) - entry.prompt for entry in result], dtype=torch.float32)
    assert torch.allclose(numbers["share"], tokens / tokens.mean())
    bench.base.restore()


class Worth(Answers):
    """Answers of the given class, as if all to a question were worth the same, or the first of each more than the others."""

    differ = False

    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        rows, numbers = super().draw(step_context, count)
        group = np.arange(count) // self.answers
        worth = (np.arange(count) % self.answers == 0 if self.differ else group).astype(np.float64)
        return rows, {**numbers, "advantage": torch.from_numpy(advantages(worth, group)).float()}


class Differing(Worth):
    differ = True


@pytest.mark.parametrize(("kind", "zero"), [(Worth, True), (Differing, False)])
def test_where_all_answers_are_worth_the_same_the_policy_has_no_gradient(
    bench: TrialRunner, kind: type[Worth], zero: bool
) -> None:
    """None at all without divergence, for questions of unlike rewards, too; where one answer stands out there is one."""
    phase = Phase(
        {"policy": WeightedTerm(Policy("rollout", kl=0.0))}, rollout=kind(4, (3, 5, 8)), reads=("refusal", "retain")
    )
    run = Run(Made(lr=1e-3, epochs=1, declared=(phase,)), bench.reference, batch=16, seed=1, engine=Engine())
    picked = run.draw()
    forward = Forward.of(bench.base.model, run.stack.batch(picked["rollout"]))
    (loss,) = run.losses({"rollout": forward}, picked).values()
    result = torch.autograd.grad(loss, list(run.parameters.values()))
    bench.base.restore()
    assert all(not bool(entry.any()) for entry in result) == zero


@pytest.fixture(scope="module")
def steered(bench: TrialRunner) -> BaseStatistics:
    """The bench with a base model that has begun to learn its refusals."""
    parts = {"refuse": WeightedTerm(NLL("refusal")), "retain": WeightedTerm(NLL("retain"))}
    unlearn(bench.base, Made(lr=5e-3, epochs=8, declared=(Phase(parts),)), bench.reference, batch=16, seed=1)
    model = copy.deepcopy(bench.base.model)
    bench.base.restore()
    return BaseStatistics(wrap("steered", model, bench.base.tokenizer), bench.reference.pools)


MANY = 1920
"""Answers: rewards deviate by at most 1/2, so two standard errors of a difference of two means are at most 0.033."""


def _worth(made: BaseStatistics) -> float:
    """Mean reward of `MANY` answers as the model stands, drawn many at a time and without their likelihoods."""
    drawn = Answers(4, nearest(made.ask(Directions())))
    step_context = StepContext(made, {}, {}, 16, seed=9, step=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "ROWS", MANY // 3)
        patch.setattr(module, "likelihoods", lambda *_: torch.zeros(1))
        drawn.draw(step_context, MANY)
    return float(step_context.state["rewards"][0])


def _taught(made: BaseStatistics, seed: int) -> float:
    """Mean reward after the second phase alone."""
    phase = replace(make(Method, "rule").phases(method_context(made, seed))[1], step_fraction=1.0)
    made.base.restore()
    unlearn(made.base, Made(lr=2e-3, epochs=6, declared=(phase,)), made, batch=16, seed=seed)
    after = _worth(made)
    made.base.restore()
    return after


@pytest.fixture(scope="module")
def untaught(steered: BaseStatistics) -> float:
    """Mean reward before it, 0.49, which leaves room on both sides."""
    steered.base.restore()
    worth = _worth(steered)
    # 0.55 where three in five questions are refused as they should be and the others answered
    assert 0.4 < worth < 0.52
    return worth


def test_the_mean_reward_rises(steered: BaseStatistics, untaught: float) -> None:
    """Characteristic test of the card. On models of five seeds it rises by 0.047, deviation 0.037, 0.016 at least: that it rises is
    asked of any; the next test, where advantages are turned, shows that it is their doing."""
    after = [_taught(steered, seed) for seed in (1, 2)]
    assert sum(after) / 2 > untaught


@pytest.mark.parametrize("seed", [1])
def test_the_second_phase_of_the_whole_method_earns_more_than_its_first_left(bench: TrialRunner, seed: int) -> None:
    method = make(Method, "rule", {"lr": 2e-3, "epochs": 30})
    bench.base.restore()
    first = round(
        method.phases(PLACEHOLDER_CONTEXT)[0].step_fraction
        * TrainingLength.of(method, len(bench.view.forget), 16).steps
    )
    seen: list[float] = []

    def look() -> bool:
        seen.append(_worth(bench.reference))
        return False

    unlearn(bench.base, method, bench.reference, batch=16, seed=seed, callbacks={first: look})
    after = _worth(bench.reference)
    bench.base.restore()
    assert after > seen[0] + 0.033


def test_the_mean_reward_falls_where_advantages_are_turned(
    steered: BaseStatistics, untaught: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "advantages", lambda *arguments: -advantages(*arguments))
    assert _taught(steered, 1) < untaught - 0.05


def test_members_of_one_model_draw_and_learn_as_if_each_were_alone(steered: BaseStatistics) -> None:
    def trained(seeds: Sequence[int]) -> list[tuple[list[float], Weights]]:
        model = copy.deepcopy(steered.base.model)
        base = wrap("members", model, steered.base.tokenizer, "lora:rank=2", n_adapters=len(seeds))
        made = BaseStatistics(base, steered.pools)
        phase = replace(make(Method, "rule").phases(method_context(made, 1))[1], step_fraction=1.0)
        method = Made(lr=5e-2, epochs=1, declared=(phase,))
        runs = [Run(method, made, batch=16, seed=s, adapter_index=k, engine=Engine()) for k, s in enumerate(seeds)]
        train_pack(base, runs, Engine())
        return [(run.state["rewards"], base.trainable.snapshot(k)) for k, run in enumerate(runs)]

    steered.base.restore()
    together = trained([1, 2])
    for (worth, weights), ((rewards_alone, alone),) in zip(together, [trained([1]), trained([2])], strict=True):
        assert worth == rewards_alone
        assert same(weights, alone)
    assert not same(together[0][1], together[1][1])


class Watched(Rollout):
    """The first forget rows, and whether they were written in lower precision."""

    every = 1
    passes = 0.0

    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], dict[str, Tensor]]:
        step_context.state["half"] = torch.is_autocast_enabled("cpu")
        return step_context.reference.pools.rows["forget"][:count], {}


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_rows_are_written_as_precisely_as_they_are_trained_on(bench: TrialRunner, autocast: torch.dtype | None) -> None:
    method = Made(lr=1e-4, epochs=1, declared=(Phase({"a": WeightedTerm(NLL("rollout"))}, rollout=Watched()),))
    run = Run(method, bench.reference, batch=32, seed=1, engine=Engine())
    train_pack(bench.base, [run], Engine(autocast))
    bench.base.restore()
    assert run.state["half"] == (autocast is not None)


def test_the_second_phase_has_a_rate_of_its_own(bench: TrialRunner) -> None:
    """Of the highest rates that the two phases' optimisers see, the ratio is policy_rate."""
    method = make(Method, "rule", {"lr": 1e-4, "epochs": 5, "policy_rate": 0.2})
    run = Run(method, bench.reference, batch=32, seed=1, engine=Engine())
    seen: dict[tuple[str, ...], float] = {}

    def each() -> None:
        if not run.finished:
            rate = run.optimiser._adamw.param_groups[0]["lr"]
            seen[run.phase.roles] = max(seen.get(run.phase.roles, 0.0), rate)

    train_pack(bench.base, [run], Engine(), None, each)
    bench.base.restore()
    first, second = seen.values()
    assert second / first == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "why"),
    [("blur(rule)", "in each phase"), ("blur(e2urec)", "in each phase"), ("guard(rule)", "rows are the task's"),
     ("fit(rule)", "rows are the task's"), ("lat(rule)", "other answers"), ("advunlearn(rule)", "other answers")],
)  # fmt: skip
def test_what_does_not_fit_rollouts_is_refused(name: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        find(Method, name)().phases(PLACEHOLDER_CONTEXT)


def test_it_needs_refusals_and_retain_rows() -> None:
    assert set(find(Method, "rule").needs()) == {"refusals", "retain rows"}
