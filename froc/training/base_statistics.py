"""Training rows, and numbers of the base model on them: computed on first use, once per task, and kept.

Shapes: B rows, T tokens, D width, N positions that predict an answer or its end, K buckets of the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from froc import hashing
from froc.data.splits import SearchView
from froc.data.task import Row
from froc.errors import InputError
from froc.models.base import Base
from froc.models.batches import Batch, Counts, Encoded, Limits, Stack, by_length, encode, on_device
from froc.models.forward import Forward, Pass
from froc.models.hooks import blocks
from froc.models.likelihood import widened
from froc.models.memory import measured_in_rows
from froc.models.nf4 import unpacked
from froc.models.process_group import differentiable, gradients, whole
from froc.models.trainable import Full
from froc.training.entry_states import EntryStates
from froc.training.token_distribution import TokenDistribution

ALIGNED = 512
"""Largest number of retain rows that forget rows are aligned with."""


Role = str
"""What rows are for in training: `forget`, `retain`, `refusal`, or a pool declared in `Phase.sources`, or `rollout`."""
ResultT = TypeVar("ResultT")


class BaseModelQuery(ABC, Generic[ResultT]):
    """A question about the base model that a method asks before it declares its phases; computed once per task.

    Examples: layers that hold an answer, directions of the retain rows' inputs, a second model's numbers. A frozen
    dataclass: equal queries share one result.
    """

    @abstractmethod
    def compute(self, reference: "BaseStatistics") -> ResultT:
        """The answer. The model holds the base parameters and must hold them afterwards; random draws use seeds from the fields."""

    @abstractmethod
    def placeholder(self, context: "MethodContext") -> ResultT:
        """A dummy answer of the same form, for listing methods without a model."""


class RowSource(ABC):
    """Makes the rows of a role from the task's rows; row i stands for forget row i.

    needs_questions: whether every forget row must have a question.
    requirement: what a task must have, in words.
    """

    needs_questions: ClassVar[bool] = True
    requirement: ClassVar[str] = "questions"

    @abstractmethod
    def rows(self, reference: "BaseStatistics") -> Sequence[Encoded]:
        """As many rows as there are forget rows. The model holds the base parameters and must do so afterwards."""


@dataclass(frozen=True)
class MethodContext:
    """What a method knows before it declares its phases.

    layers: number of transformer blocks.
    width: size of the hidden states.
    seed: of this trial.
    adapters: whether adapters train beside frozen parameters.
    answer: computes answers to queries; None makes queries return placeholders.
    half: whether the model's parameters are in half precision.
    """

    layers: int
    width: int
    seed: int
    adapters: bool = False
    answer: Callable[[BaseModelQuery[Any]], Any] | None = field(default=None, compare=False, repr=False)
    half: bool = False

    def ask(self, query: BaseModelQuery[ResultT]) -> ResultT:
        """The answer to a query, computed once per task."""
        return query.placeholder(self) if self.answer is None else cast(ResultT, self.answer(query))

    def refuse_adapters(self, name: str) -> None:
        """InputError where adapters are trained, for methods that write the parameters themselves."""
        if self.adapters:
            raise InputError(f"{name} writes the model's own matrices; it needs --train full")


PLACEHOLDER_CONTEXT = MethodContext(4, 8, 0)
"""Replaces a model where a method's phases are listed without one."""


@dataclass(frozen=True)
class TrainingRows:
    """Encoded rows of each role; row i of every role but `retain` and `earlier` stands for forget row i.

    rows: role -> rows; `earlier` are forget rows of earlier requests, which are not trained on.
    all_have_questions: whether every forget row has a question, so that other answers can be generated.
    seed: of drawn rows.
    names: name of each forget row's group, "" for a row without one; empty where rows have none.
    retrained: folder of a model that never saw the forget rows; None if the task has none.
    """

    rows: Mapping[Role, Sequence[Encoded]]
    all_have_questions: bool = True
    seed: int = 0
    retrained: str | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: SearchView, base: Base, seed: int) -> "TrainingRows":
        """Encode the rows that may be trained on; one refusal per forget row is drawn by `seed`."""
        limits = Limits.of(base.model)
        rows_by_role: dict[Role, Sequence[Row]] = {"forget": view.forget, "retain": view.retain}
        if view.earlier:
            rows_by_role["earlier"] = view.earlier
        with_question = [row for row in view.forget if row.question]
        whole = len(with_question) == len(view.forget)
        if view.refusals and whole:
            draw = torch.Generator().manual_seed(hashing.derive_seed("refusals", seed))
            picks = torch.randint(len(view.refusals), (len(with_question),), generator=draw).tolist()
            rows_by_role["refusal"] = [
                replace(row, answer=view.refusals[i]) for row, i in zip(with_question, picks, strict=True)
            ]
        rows = {role: encode(base.tokenizer, rows, view.template, limits, role) for role, rows in rows_by_role.items()}
        return cls(rows, whole, seed, view.retrained, tuple(row.group for row in view.forget))


@dataclass
class BaseStatistics:
    """Numbers of the base model on training rows, computed on first use and kept.

    stack: the rows of all roles on the device.
    offsets: role -> index of its first row in the stack.
    sum_nll: role -> (rows,) nats.
    hidden: (role, layer) -> one (T, D) tensor per row.
    norm: (role, layer) -> the mean hidden norm over all rows' answer states (`Batch.answer_states`), and (rows,) the
        mean per row.
    token_distribution: role -> the next-token distributions.
    alignment: (forget rows,), see `_aligned`.
    answers: query -> its answer.
    """

    base: Base
    pools: TrainingRows
    sum_nll: dict[Role, Tensor] = field(default_factory=dict)
    hidden: dict[tuple[Role, int], list[Tensor]] = field(default_factory=dict)
    norm: dict[tuple[Role, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    token_distribution: dict[Role, "TokenDistribution"] = field(default_factory=dict)
    alignment: Tensor | None = None
    answers: dict[BaseModelQuery[Any], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.entry_states = EntryStates(self.base)
        self._build_stack()

    def _build_stack(self) -> None:
        self.offsets: dict[Role, int] = {}
        every: list[Encoded] = []
        for role, rows in self.pools.rows.items():
            self.offsets[role] = len(every)
            every += rows
        self.stack = Stack(every, self.base.device)

    def ensure(self, role: Role, source: RowSource | None = None) -> None:
        """Make a role's rows on first use; InputError where the task lacks what that takes. The model must hold the base parameters."""
        if role in self.pools.rows:
            return
        if source is None:
            mend = "idk.txt" if role == "refusal" else f"{role}.jsonl"
            raise InputError(f"needs {role} rows, which this task lacks; add {mend} or leave the method out")
        if source.needs_questions and not self.pools.all_have_questions:
            raise InputError("needs forget rows with questions; add them or leave the method out")
        self.pools = replace(self.pools, rows={**self.pools.rows, role: source.rows(self)})
        self._build_stack()

    def ask(self, query: BaseModelQuery[ResultT]) -> ResultT:
        """The answer to a query, computed on first use. The model must hold the base parameters."""
        if query not in self.answers:
            self.answers[query] = query.compute(self)
        result: ResultT = self.answers[query]
        return result

    def row_range(self, role: Role, most: int | None = None) -> range:
        """Indices of a role's rows, or of at most `most` of them, evenly spaced; empty for an absent role."""
        count = len(self.pools.rows.get(role, ()))
        return range(0, count, 1 if most is None else max(1, -(-count // most)))

    def batches(self, role: Role, size: int = 64, most: int | None = None) -> Iterator[tuple[Counts, Batch]]:
        """Batches of similar length over `row_range`, each with its rows' (B,) indices in the role."""
        places = self.row_range(role, most)
        for index in by_length([self.pools.rows[role][i] for i in places], size):
            place = np.asarray(index) * places.step
            yield place, self.stack.batch(place + self.offsets[role])

    def mean_gradient(
        self, role: Role, weights: Mapping[str, Parameter], size: int = 64, most: int | None = None
    ) -> dict[str, Tensor]:
        """name -> gradient, at the current parameters, of the mean over `row_range` rows of the NLL per token; float32 or wider.

        weights: name -> parameter, frozen or not. The gradient is zero where the answers do not depend on it; `.grad`
            stays untouched.
        """
        total = {name: torch.zeros_like(p, dtype=widened(p).dtype) for name, p in weights.items()}
        with differentiable(self.base.model, weights.values()):
            for _, batch in self.batches(role, size, most) if weights else ():
                loss = Forward.of(self.base.model, batch).mean_nll.sum() / len(self.row_range(role, most))
                for summed, grad in zip(total.values(), gradients(loss, list(weights.values())), strict=True):
                    if grad is not None:
                        summed += grad
        return total

    def prepare(self, role: Role, needs: Sequence[str], layers: Sequence[int], size: int) -> None:
        """Compute what is missing; the model must hold the base parameters."""
        if "alignment" in needs and self.alignment is None:
            self.alignment = measured_in_rows(self.base.model, size, partial(_aligned, self))
        measured_in_rows(self.base.model, size, partial(self._pass_over, role, needs, layers))

    @torch.no_grad()
    def _pass_over(self, role: Role, needs: Sequence[str], layers: Sequence[int], size: int) -> None:
        kept = [layer for layer in layers if "hidden" in needs and (role, layer) not in self.hidden]
        measured = {"hidden_norm", "row_norm"} & set(needs)
        norms = [layer for layer in layers if measured and (role, layer) not in self.norm]
        likely = "sum_nll" in needs and role not in self.sum_nll
        distribution = "token_distribution" in needs and role not in self.token_distribution
        if not (kept or norms or likely or distribution):
            return
        rows = self.pools.rows[role]
        nll = torch.zeros(len(rows), device=self.base.device)
        states: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(rows) for layer in kept}
        lengths: dict[int, list[Tensor]] = {layer: [] for layer in norms}
        means = {layer: torch.zeros(len(rows), device=self.base.device) for layer in norms}
        whole = TokenDistribution(rows, self.base) if distribution else None
        for index, batch in self.batches(role, size):
            result = Pass(self.base.model, batch, hidden_at=sorted({*kept, *norms}), logits=likely or distribution)
            if likely:
                nll[index] = result.sum_nll.to(nll)
            if whole is not None:
                whole.add(index, result)
            for layer in kept:
                for place, i in enumerate(index):
                    states[layer][i] = result.hidden[layer][place, : len(rows[i].ids)].clone()
            for layer in norms:
                every = result.hidden[layer].float().norm(dim=-1)
                lengths[layer].append(every[batch.answer_states])
                means[layer][index] = (every * batch.answer_states).sum(1) / batch.answer_states.sum(1).clamp_min(1)
        if likely:
            self.sum_nll[role] = nll
        if whole is not None:
            self.token_distribution[role] = whole
        self.hidden |= {(role, layer): hidden for layer, hidden in states.items()}
        self.norm |= {
            (role, layer): (torch.cat(row_norms).mean(), means[layer]) for layer, row_norms in lengths.items()
        }

    def lookup(
        self, role: Role, needs: Collection[str], layers: Sequence[int], index: Counts, forward: Forward | None = None
    ) -> dict[str, Tensor]:
        """name -> the base model's numbers for rows of a role.

        index: (B,) rows within the role, returned as `row` (B,) int64.
        layers: hidden states are those of the first one.
        forward: the forward pass that `token_distribution` is aligned with.

        By need: sum_nll (B,) nats; hidden (B, T, D); hidden_norm () and row_norm (B,) in the hidden states' units;
        alignment (B,), with alignments (rows,) of all forget rows; token_distribution (N, K) log-probabilities, with
        buckets (N, K - 1) token ids, or (0,) where buckets are the whole vocabulary.
        """
        place = on_device(index, self.base.device)
        numbers = {"row": place}
        if "sum_nll" in needs:
            numbers["sum_nll"] = self.sum_nll[role][place]
        if "hidden" in needs:
            rows = [self.hidden[role, layers[0]][i] for i in index.tolist()]
            numbers["hidden"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        if "hidden_norm" in needs:
            numbers["hidden_norm"] = self.norm[role, layers[0]][0]
        if "row_norm" in needs:
            numbers["row_norm"] = self.norm[role, layers[0]][1][place]
        if "alignment" in needs:
            assert self.alignment is not None
            numbers |= {"alignment": self.alignment[place], "alignments": self.alignment}
        if "token_distribution" in needs:
            assert forward is not None
            numbers["token_distribution"], numbers["buckets"] = self.token_distribution[role].of(
                place[forward.row], forward.place
            )
        return numbers


def method_context(reference: BaseStatistics, seed: int) -> MethodContext:
    """The context of methods for a model and its rows, before a trial with this seed."""
    config: Any = reference.base.model.config.get_text_config()
    adapters = not isinstance(reference.base.trainable, Full)
    half = next(reference.base.model.parameters()).dtype.itemsize < 4
    return MethodContext(int(config.num_hidden_layers), int(config.hidden_size), seed, adapters, reference.ask, half)


def _aligned(reference: BaseStatistics, size: int) -> Tensor:
    """(forget rows,) inner product of each row's gradient with the mean retain gradient, standardised.

    Gradients are of the mean NLL with respect to the last block's weights: the effect of a step on a row on the retain
    rows, to first order.
    """
    with unpacked(reference.base.model):
        return _plain_aligned(reference, size)


def _plain_aligned(reference: BaseStatistics, size: int) -> Tensor:
    model = reference.base.model
    block = {n: p for n, p in blocks(model)[-1].named_parameters() if "lora_" not in n}
    mean = reference.mean_gradient("retain", block, size, ALIGNED)
    products = []
    with differentiable(model, block.values()):
        for place in range(len(reference.pools.rows["forget"])):
            batch = reference.stack.batch([place + reference.offsets["forget"]])
            grads = gradients(Forward.of(model, batch).mean_nll.sum(), list(block.values()))
            pairs = [(a, b) for a, b in zip(grads, mean.values(), strict=True) if a is not None]
            products.append(torch.stack([whole((a * b).sum()) for a, b in pairs]).sum())
    scores = torch.stack(products).float().to(reference.base.device)
    return (scores - scores.mean()) / scores.std(correction=0).clamp_min(1e-12)
