"""Reinforcement unlearning: refuse what is to be forgotten, answer what lies at its boundary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from froc import hashing
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._likeness import Directions
from froc.metrics.rouge_l import common, overlaps
from froc.models.batches import Counts, Encoded, Stack, by_length
from froc.models.forward import Forward
from froc.models.generation import ROWS, sample_answers
from froc.training.base_statistics import MethodContext
from froc.training.components import Rollout, StepContext
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import NLL, State, TokenTerm, WeightedTerm

NEAR = 0.5
"""F1 of the longest common subsequence of tokens with one of the task's refusals, from which on an answer is a refusal."""
RECALL = 0.3
"""ROUGE-L recall of the true answer above which a boundary question is answered."""
BOUNDARY = 0.4
"""Share of boundary questions: the authors take 8 % of the data for them beside 12 % of forget questions."""


@dataclass(frozen=True)
class Policy(TokenTerm):
    """-min(r A, clip(r, 1 - c, 1 + c) A) + kl (e^d - d - 1) for each drawn token (GRPO 2402.03300, eq. 3 and 4).

    r = p / p_old; d = log p_base - log p; A is the row's. The second summand is an estimate of KL(p || p_base) that is never
    negative. Reads `advantage` (B,), `old` and `base` (B, tokens) log-probabilities, nats.
    """

    kl: float = 0.01
    clip: float = 0.2

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) losses."""
        log = -forward.nll
        worth = reference["advantage"][forward.row]
        ratio = torch.exp(log - reference["old"][forward.row, forward.place])
        gain = torch.minimum(ratio * worth, ratio.clamp(1 - self.clip, 1 + self.clip) * worth)
        apart = reference["base"][forward.row, forward.place] - log
        return self.kl * (torch.expm1(apart) - apart) - gain


@dataclass(frozen=True)
class Answers(Rollout):
    """`answers` drawn answers to each of some forget and boundary questions, with advantages among those to the same question.

    boundary: retain rows that are asked. `rewards` in the state: the mean of each draw.
    """

    answers: int
    boundary: tuple[int, ...]
    every: int = 2

    @property
    def passes(self) -> float:
        """Three passes forward: writing, which goes through each token once, and the likelihoods to the model and the base."""
        return 1.0

    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        """Rows, and `advantage` (count,), `old` and `base` (count, tokens) log-probabilities."""
        base, pools = step_context.reference.base, step_context.reference.pools.rows
        seed = hashing.derive_seed("rollout", step_context.seed, step_context.step)
        index, outside = self._draw_questions(
            np.random.default_rng(seed), -(-count // self.answers), len(pools["forget"])
        )
        group = np.arange(count) // self.answers
        questions = [pools["retain" if outside[k] else "forget"][index[k]] for k in group]
        longest = max(row.answer for row in pools["refusal"])
        most = np.array([max(row.answer, longest) * 3 // 2 + 1 for row in questions])
        rows = sample_answers(base.model, questions, most, seed)
        shared, _, length = overlaps(_texts(step_context, rows), _texts(step_context, questions))
        worth = rewards(refused(rows, pools["refusal"]), shared > RECALL * length, outside[group])
        step_context.state.setdefault("rewards", []).append(float(worth.mean()))
        old = likelihoods(base.model, rows)
        with base.trainable.base_active():
            before = likelihoods(base.model, rows)
        gained = torch.from_numpy(advantages(worth, group)).to(old)
        return rows, {"advantage": gained, "old": old, "base": before}

    def _draw_questions(self, draw: np.random.Generator, count: int, forget: int) -> tuple[Counts, NDArray[np.bool_]]:
        """(count,) rows that are asked, and whether each is a boundary question."""
        share = BOUNDARY if self.boundary else 0.0
        # by chance where it is no whole number, so that a small batch has some of them, too
        outside = draw.permutation(np.arange(count) < int(share * count + draw.random()))
        index = _draw_indices(draw, forget, count)
        if outside.any():
            index[outside] = np.array(self.boundary)[_draw_indices(draw, len(self.boundary), int(outside.sum()))]
        return index, outside


def _draw_indices(draw: np.random.Generator, rows: int, count: int) -> Counts:
    """(count,) of so many rows, none twice before all were taken."""
    order: Counts = np.concatenate([draw.permutation(rows) for _ in range(-(-count // rows))])[:count]
    return order


def refused(written: Sequence[Encoded], refusals: Sequence[Encoded]) -> NDArray[np.bool_]:
    """(n,) whether an answer is one of some refusals, or as near to one as `NEAR` says."""
    known = {refusal.answer_ids for refusal in refusals}
    return np.array([any(_f1(row.answer_ids, refusal) >= NEAR for refusal in known) for row in written], dtype=bool)


def _f1(a: Sequence[int], two: Sequence[int]) -> float:
    return 2 * common(a, two) / (len(a) + len(two))


def rewards(refusing: NDArray[np.bool_], right: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) in {0, 1/2, 1}. Forget questions: 1 for a refusal, else 0. Those `outside`: 0 for one, else 1/2, 1 where it is right."""
    return np.where(outside, np.where(refusing, 0.0, 0.5 + 0.5 * right), refusing)


def advantages(worth: NDArray[np.float64], group: Counts) -> NDArray[np.float64]:
    """(n,) rewards in standard deviations from the mean of their group, 0 where all of it agree; groups count from 0."""
    size = np.bincount(group)
    mean = (np.bincount(group, worth) / size)[group]
    spread = np.sqrt(np.bincount(group, (worth - mean) ** 2) / size)[group]
    scaled: NDArray[np.float64] = np.divide(worth - mean, spread, out=np.zeros_like(worth), where=spread > 1e-9)
    return scaled


@torch.no_grad()
def likelihoods(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """(rows, tokens of the longest answer and its end) log-probabilities; 0 where a row has no such token."""
    stack = Stack(rows, next(model.parameters()).device)
    logprobs = torch.zeros(len(rows), int((stack.length - stack.start).max()), device=stack.ids.device)
    for index in by_length(rows, ROWS):
        forward = Forward.of(model, stack.batch(np.asarray(index)))
        logprobs[torch.tensor(index, device=logprobs.device)[forward.row], forward.place] = -forward.nll.to(logprobs)
    return logprobs


def _texts(step_context: StepContext, rows: Sequence[Encoded]) -> list[str]:
    return step_context.reference.base.tokenizer.batch_decode(
        [list(row.answer_ids) for row in rows], skip_special_tokens=True
    )


def nearest(directions: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Retain rows most alike to some forget row, as many as there are forget rows, at most all."""
    forget, retain = directions["forget"], directions["retain"]
    if not len(forget) or not len(retain):
        return ()
    alike = torch.cat([(part @ forget.T).amax(1) for part in retain.split(4096)])
    order = alike.sort(descending=True, stable=True).indices[: len(forget)]
    return tuple(sorted(order.tolist()))


@dataclass(frozen=True)
class RULE(Retaining):
    """Learn to refuse the forget questions, then by reinforcement where to refuse: forget questions yes, their neighbours no.

    First NLL on refusals + retain_weight NLL on retain rows. Then GRPO on drawn answers: the reward of a forget question is 1 for a
    refusal, else 0; that of a boundary question 0 for a refusal, else 1/2, and 1 where ROUGE-L recall of the true answer is above
    0.3. Advantages A are rewards in standard deviations from their question's mean, 0 where all of its answers are worth the same;
    the loss is -min(r A, clip(r, 0.8, 1.2) A) + kl_weight KL(model || base), r the ratio of likelihoods now and when drawn, in
    the mean over each answer's tokens.

    rejection: share of the steps for the first part. answers: to each question. policy_rate: learning rate of the second part in
    units of lr.

    The authors have boundary questions written by another model, find refusals by patterns, and take 8 % of the data for boundary
    questions beside 12 % for forget questions. Our reading: boundary questions are of the retain rows whose centred mean hidden
    states are nearest to a forget row's, two in five questions; a refusal is what has half of its tokens in common with one of the
    task's, as F1 of the longest common subsequence, for a model that has only begun to learn sentences writes none of them
    exactly, and where no answer is worth more than the others nothing is learnt; retain rows hold the first part; answers are drawn
    anew every second step. The authors' policy_rate is 5, to 2e-6 after a first part at 4e-7. Here the first part has few steps and
    needs a high rate, and a second one at the same rate undid it on the embedded task. Half a refusal earns as much as a whole one;
    and where the first part taught too few refusals to be rewarded, the second goes back towards the base. Refusing is not forgetting.
    """

    paper: ClassVar[str] = "2506.07171"
    family: ClassVar[str] = "refusal"

    rejection: float = hyperparameter(0.6, Range(0.3, 0.8))
    answers: int = hyperparameter(4, Choice((4, 8)))
    kl_weight: float = hyperparameter(0.01, Range(1e-3, 0.1, log=True))
    policy_rate: float = hyperparameter(0.3, Range(0.05, 1.0, log=True))

    @property
    def can_stop_early(self) -> bool:
        """No: on the way it refuses what it will answer."""
        return False

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """Rejection steering, then refusal boundary optimisation."""
        drawn = Answers(self.answers, nearest(context.ask(Directions())))
        return (
            Phase({"refuse": WeightedTerm(NLL("refusal")), **self.retain_terms()}, step_fraction=self.rejection),
            Phase(
                {"policy": WeightedTerm(Policy("rollout", self.kl_weight))},
                step_fraction=1 - self.rejection,
                rollout=drawn,
                reads=("refusal", "retain"),
                phase_lr_multiplier=self.policy_rate,
            ),
        )
