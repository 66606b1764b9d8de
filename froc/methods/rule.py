"""Reinforcement unlearning (RULE): refuse forget questions, answer the similar ones that must be kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from froc import hashing
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._likeness import Directions
from froc.metrics.rouge_l import common, words
from froc.models.batches import Counts, Encoded, Stack, by_length
from froc.models.forward import Forward
from froc.models.generation import ROWS, sample_answers
from froc.training.base_statistics import MethodContext
from froc.training.components import Rollout, StepContext
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.terms import NLL, State, TokenTerm, WeightedTerm

NEAR = 0.5
"""An answer counts as a refusal from this token F1 (longest common subsequence) with one of the task's refusals."""
BOUNDARY = 0.4
"""Share of boundary questions among the drawn ones; the authors take 8 % of the data for them beside 12 % for forget questions."""
CLIP = (0.8, 1.3)
"""Range of likelihood ratios within which a token still earns (the authors' `clip_ratio` 0.2 and `clip_ratio_high` 0.3)."""
DUAL_CLIP = 3.0
"""Largest loss of a token of a bad answer, in advantages (Ye et al. 1912.09729)."""
KL_LIMIT = 10.0
"""Largest divergence of one token that counts, nats."""


@dataclass(frozen=True)
class Policy(TokenTerm):
    """-min(r A, clip(r, 0.8, 1.3) A) + kl (e^d - d - 1) per drawn token (GRPO 2402.03300, eq. 3 and 4).

    r = p / p_old, d = log p_steered - log p, and A is the row's advantage. Where A is negative, the first summand is at
    most 3 |A| (dual clip 1912.09729). The second is a never negative estimate of KL(p || p_steered), at most 10 a token
    where d lies within 20 of 0. The rows bring `advantage` (B,), `old` and `steered` (B, tokens) log-probabilities in
    nats, and `share` (B,): the row's tokens relative to the mean of the rows drawn with it, which makes the mean over
    rows one over tokens.
    """

    kl: float = 0.01

    def tokens(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(N,) losses."""
        log = -forward.nll
        worth = reference["advantage"][forward.row]
        ratio = torch.exp(log - reference["old"][forward.row, forward.place])
        gain = torch.minimum(ratio * worth, ratio.clamp(*CLIP) * worth)
        gain = torch.where(worth < 0, torch.maximum(gain, DUAL_CLIP * worth), gain)
        apart = (reference["steered"][forward.row, forward.place] - log).clamp(-20.0, 20.0)
        return self.kl * (torch.expm1(apart) - apart).clamp_max(KL_LIMIT) - gain

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) means over each row's tokens, weighted so that their mean over the drawn rows is one over tokens."""
        return super().losses(forward, reference, state) * reference["share"]


@dataclass(frozen=True)
class Answers(Rollout):
    """Draws `answers` answers to each of several forget and boundary questions, with advantages within each question's answers.

    boundary: indices of the retain rows that serve as boundary questions.

    The mean reward of each draw is appended to `state["rewards"]`.
    """

    answers: int
    boundary: tuple[int, ...]
    every: int = 2

    @property
    def passes(self) -> float:
        """Three forward passes: generation (each token once), and the likelihoods under the model and the steered one."""
        return 1.0

    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        """Rows with drawn answers, and their `advantage` and `share` (count,), `old` and `steered` (count, tokens).

        The parameters at the first draw, when phase 1 has ended, are kept in `state["steered"]`.
        """
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
        names = step_context.reference.pools.names
        expected = ["" if outside[k] or not names else names[index[k]] for k in group]
        named = np.array(
            [mentions(text, name) for text, name in zip(_texts(step_context, rows), expected, strict=True)]
        )
        worth = rewards(refused(rows, pools["refusal"]), named, outside[group])
        step_context.state.setdefault("rewards", []).append(float(worth.mean()))
        old = likelihoods(base.model, rows)
        steered = self.steered_likelihoods(step_context, rows)
        tokens = torch.tensor([len(row.ids) - row.prompt for row in rows]).to(old)
        gained = torch.from_numpy(advantages(worth, group)).to(old)
        return rows, {"advantage": gained, "old": old, "steered": steered, "share": tokens / tokens.mean()}

    @staticmethod
    def steered_likelihoods(step_context: StepContext, rows: Sequence[Encoded]) -> Tensor:
        """(rows, tokens) log-probabilities under the parameters at the first draw; those of now are put back bit for bit."""
        parameters, state = step_context.parameters, step_context.state
        steered = state.setdefault("steered", {name: value.detach().clone() for name, value in parameters.items()})
        current = {name: value.detach().clone() for name, value in parameters.items()}
        try:
            _put(parameters, steered)
            return likelihoods(step_context.reference.base.model, rows)
        finally:
            _put(parameters, current)

    def _draw_questions(self, draw: np.random.Generator, count: int, forget: int) -> tuple[Counts, NDArray[np.bool_]]:
        """(count,) row indices, and (count,) whether each is a boundary question."""
        share = BOUNDARY if self.boundary else 0.0
        # randomised rounding, so that small batches also get boundary questions
        outside = draw.permutation(np.arange(count) < int(share * count + draw.random()))
        index = _draw_indices(draw, forget, count)
        if outside.any():
            index[outside] = np.array(self.boundary)[_draw_indices(draw, len(self.boundary), int(outside.sum()))]
        return index, outside


@torch.no_grad()
def _put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
    # autocast would otherwise use cached copies of the replaced parameters
    torch.clear_autocast_cache()


def _draw_indices(draw: np.random.Generator, rows: int, count: int) -> Counts:
    """(count,) indices below `rows`; none repeats before all have been drawn."""
    order: Counts = np.concatenate([draw.permutation(rows) for _ in range(-(-count // rows))])[:count]
    return order


def refused(written: Sequence[Encoded], refusals: Sequence[Encoded]) -> NDArray[np.bool_]:
    """(n,) whether an answer is one of the refusals or close to one (`NEAR`)."""
    known = {refusal.answer_ids for refusal in refusals}
    return np.array([any(_f1(row.answer_ids, refusal) >= NEAR for refusal in known) for row in written], dtype=bool)


def _f1(a: Sequence[int], two: Sequence[int]) -> float:
    return 2 * common(a, two) / (len(a) + len(two))


def mentions(text: str, name: str) -> bool:
    """Whether a text holds all words of a name in a row; never for an empty name.

    >>> mentions("I do not know Ada Byron.", "ada byron"), mentions("I do not know Ada.", "Ada Byron"), mentions("x", "")
    (True, False, False)
    """
    return bool(name.strip()) and f" {' '.join(words(name))} " in f" {' '.join(words(text))} "


def rewards(refusing: NDArray[np.bool_], named: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) rewards in {0, 1/4, 1/2, 1}.

    Forget questions: 1/4 for a refusal, and 1/4 more where it names the target; else 0. Boundary questions (`outside`):
    1 for any answer that is no refusal, else 0.
    """
    return np.where(outside, ~refusing, refusing * (0.25 + 0.25 * named)).astype(np.float64)


def advantages(worth: NDArray[np.float64], group: Counts) -> NDArray[np.float64]:
    """(n,) rewards in standard deviations (unbiased) from their group's mean; 0 where all rewards of a group are equal.

    group: (n,) group indices, counted from 0.
    """
    size = np.bincount(group)
    mean = (np.bincount(group, worth) / size)[group]
    spread = np.sqrt(np.bincount(group, (worth - mean) ** 2) / np.maximum(size - 1, 1))[group]
    scaled: NDArray[np.float64] = np.divide(worth - mean, spread, out=np.zeros_like(worth), where=spread > 1e-9)
    return scaled


@torch.no_grad()
def likelihoods(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """(rows, tokens of the longest answer and its end) log-probabilities in nats; 0 beyond a row's answer."""
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
    """Indices of the retain rows most similar to any forget row: as many as there are forget rows, at most all."""
    forget, retain = directions["forget"], directions["retain"]
    if not len(forget) or not len(retain):
        return ()
    alike = torch.cat([(part @ forget.T).amax(1) for part in retain.split(4096)])
    order = alike.sort(descending=True, stable=True).indices[: len(forget)]
    return tuple(sorted(order.tolist()))


@dataclass(frozen=True)
class RULE(Method):
    """Learn to refuse forget questions, then learn by reinforcement to refuse only those and not their neighbours.

    Phase 1: NLL(refusals).

    Phase 2: GRPO on drawn answers. A forget question's reward is 1/4 for a refusal and 1/4 more where the refusal names
    the row's group, else 0. A boundary question's is 1 for any answer but a refusal, else 0. Advantages A are rewards in
    standard deviations (unbiased) from the mean of the same question's answers, 0 where all are equal. The loss is
    -min(r A, clip(r, 0.8, 1.3) A), at most 3 |A|, + kl_weight KL(model || model after phase 1), averaged over the drawn
    tokens; r is the ratio of the likelihood now to that when drawn.

    rejection: share of the steps spent in phase 1.
    answers: answers drawn per question.
    kl_weight: weight of the divergence from the model that phase 1 left.
    policy_rate: learning rate of phase 2, as a multiple of lr.

    The loss, its limits, the rewards and the reference of the divergence are those of the authors' main scripts
    (xwtMarch/RULE-Unlearn); their ablation keeps the base model as reference.

    Our reading: boundary questions are the retain rows whose centred mean hidden states are nearest to a forget row's,
    two in five questions; a refusal is an answer with a token F1 (longest common subsequence) of at least one half with
    one of the task's refusals; answers are drawn anew every second step. The authors let another model write the boundary questions, detect refusals by patterns, take 8 % of the data for boundary and
    12 % for forget questions, and use a policy_rate of 5 (4e-7, then 2e-6). Here phase 1 is short and needs a high
    rate; a second phase at the same rate undid it on the embedded task.

    Limits: half a refusal earns as much as a whole one. If phase 1 teaches too few refusals to be rewarded, phase 2
    returns towards the base model. Refusing is not forgetting.
    """

    paper: ClassVar[str] = "2506.07171"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "refusal"

    rejection: float = hyperparameter(0.6, Range(0.3, 0.8))
    answers: int = hyperparameter(4, Choice((4, 8)))
    kl_weight: float = hyperparameter(0.01, Range(1e-3, 0.1, log=True))
    policy_rate: float = hyperparameter(0.3, Range(0.05, 1.0, log=True))

    @property
    def can_stop_early(self) -> bool:
        """False: before the end it refuses questions that it answers later."""
        return False

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """Rejection steering, then refusal boundary optimisation."""
        drawn = Answers(self.answers, nearest(context.ask(Directions())))
        return (
            Phase({"refuse": WeightedTerm(NLL("refusal"))}, step_fraction=self.rejection),
            Phase(
                {"policy": WeightedTerm(Policy("rollout", self.kl_weight))},
                step_fraction=1 - self.rejection,
                rollout=drawn,
                reads=("refusal", "retain"),
                phase_lr_multiplier=self.policy_rate,
            ),
        )
