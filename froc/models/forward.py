"""One pass of a model over rows: logits at the positions that predict an answer, and requested hidden states.

Rows are padded on the right and models are causal, so no attention mask is needed: padding after a row cannot change
it. The output head and the last block's MLP process only the positions that predict an answer, as their other outputs
are never read. Where an architecture does not allow that (`try_narrowing`), they process all positions.

Shapes: B rows, T tokens, N predicting positions, V vocabulary, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from froc.models.autocast import autocast, current
from froc.models.batches import Batch, Counts, on_device
from froc.models.block_entry import Entry, entered
from froc.models.hooks import blocks, ended_early
from froc.models.likelihood import chunks_of, linear_nll, linear_saves_memory, over_logits, token_nll, widened
from froc.models.process_group import is_divided, whole


class _Enough(Exception):  # noqa: N818  # ends a pass early, no error
    pass


class Pass:
    """The results of one pass.

    row, column: (N,) predicting positions, on the host.
    hidden: layer -> (B, T, D) output of the transformer block, counted from 0.

    rows_stay: process whole rows everywhere, as several adapters in one model require: they are told apart by row.
    entry: where the pass begins, if not at the embeddings; layers of `hidden_at` are not before the block that ends there.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batch: Batch,
        *,
        end: bool = True,
        hidden_at: Sequence[int] = (),
        logits: bool = True,
        rows_stay: bool = False,
        entry: Entry | None = None,
    ) -> None:
        self.batch, self._entry = batch, entry
        self.row, self.column = batch.predicting(end)
        self.hidden: dict[int, Tensor] = {}
        device = batch.ids.device
        self._row, self._column = (on_device(place, device) for place in (self.row, self.column))
        self._head_dtype = current(device)
        self._states: Tensor | None = None
        self._logits = self._run(model, hidden_at, logits, rows_stay)

    @cached_property
    def logits(self) -> Tensor | None:
        """(N, V) at the predicting positions, or None if not requested."""
        return self._logits if self._states is None else self._head_output(self._states, self._whole_head())

    def logit_chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Positions and their (n, V) logits in float32 or wider, a chunk at a time."""
        values, made = self._source()
        head = None if made else self._whole_head()
        for part in chunks_of(len(values), self._vocabulary):
            yield part, widened(values[part] if head is None else self._head_output(values[part], head))

    def _source(self) -> tuple[Tensor, bool]:
        """The logits, or the head's inputs where there are no logits yet; and whether it is the logits."""
        made = self._states is None or "logits" in vars(self)
        values = self.logits if made else self._states
        assert values is not None
        return values, made

    @cached_property
    def target(self) -> Tensor:
        """(N,) tokens to be predicted."""
        return self.batch.ids[self._row, self._column + 1]

    @cached_property
    def nll(self) -> Tensor:
        """(N,) float32 negative log-likelihood of the targets, nats."""
        return self.nll_of(self.target)

    def nll_of(self, target: Tensor) -> Tensor:
        """(N,) float32 negative log-likelihood of (N,) tokens in the targets' place, nats."""
        values, made = self._source()
        if made:
            return token_nll(values, target)
        return linear_nll(values, *self._head_parameters(), target, self._head_dtype)

    def over_logits(self, function: Callable[..., Tensor], *others: Tensor, index: Tensor | None = None) -> Tensor:
        """See `Forward.over_logits`; of the positions at `index`, all by default."""
        values, made = self._source()
        values = values if index is None else values[index]
        if made and not linear_saves_memory(len(values), self._vocabulary):
            return function(widened(values), *others)
        head = None if made else self._head_parameters()
        return over_logits(function, values, head, others, self._head_dtype)

    @cached_property
    def sum_nll(self) -> Tensor:
        """(B,) negative log-likelihood of each row's targets, nats."""
        return self.nll.new_zeros(len(self.batch.index)).index_add(0, self._row, self.nll)

    def _run(self, model: PreTrainedModel, hidden_at: Sequence[int], logits: bool, rows_stay: bool) -> Tensor | None:
        last = max(hidden_at, default=-1)
        with ExitStack() as hooks:
            if self._entry is not None:
                hooks.enter_context(entered(model, self._entry))
            for layer in hidden_at:
                stop = layer == last and not logits
                hooks.callback(blocks(model)[layer].register_forward_hook(self._keep(layer, stop)).remove)
            head: Any = model.get_output_embeddings()
            if head is not None and logits and model not in WHOLE:
                if model in LINEAR_HEAD and linear_saves_memory(len(self.row), len(head.weight)):
                    self._head = head
                    hooks.callback(head.register_forward_pre_hook(self._stop_at_head, prepend=True).remove)
                hooks.callback(head.register_forward_pre_hook(self._narrow).remove)
                mlp = None if rows_stay or last == len(blocks(model)) - 1 else _last_mlp(model)
                if mlp is not None:
                    hooks.callback(mlp.register_forward_pre_hook(self._pick).remove)
                    hooks.callback(mlp.register_forward_hook(self._spread).remove)
            try:
                logits_out: Tensor = model(input_ids=self.batch.ids, use_cache=False).logits
            except _Enough:
                ended_early(model)
                return None
        # a model without a separate head module returns logits at all positions
        narrow = logits_out if logits_out.dim() == 2 else logits_out[self._row, self._column]
        self._vocabulary = narrow.shape[-1]
        return narrow

    def _head_output(self, states: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        with autocast(states.device, self._head_dtype):
            return head(states)

    def _whole_head(self) -> Callable[[Tensor], Tensor]:
        """The head; where processes divide it, its linear map on weights gathered now, since the module works within a pass alone."""
        if not is_divided(self._head.weight):
            module: Callable[[Tensor], Tensor] = self._head
            return module
        weight, bias = self._head_parameters()
        return lambda states: linear(states, weight, bias)

    def _head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """The head's weight and bias, whole where processes divide them."""
        bias = self._head.bias
        return whole(self._head.weight), None if bias is None else whole(bias)

    def _stop_at_head(self, _module: Any, args: tuple[Any, ...]) -> None:
        """Keep the head's inputs; the logits are larger than all else, and are made of them where they are read."""
        hidden = args[0]
        self._states = hidden[self._row, self._column] if hidden.dim() == 3 else hidden
        self._vocabulary = len(self._head.weight)
        raise _Enough

    def _narrow(self, _module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        return (hidden[self._row, self._column], *args[1:]) if hidden.dim() == 3 else args

    def _pick(self, _module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][self._at(args[0].device)][None], *args[1:])

    def _spread(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        wide = output.new_zeros(*self.batch.ids.shape, output.shape[-1])
        return wide.index_put(self._at(output.device), output[0])

    def _at(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self._row.to(device), self._column.to(device)

    def _keep(self, layer: int, stop: bool) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            self.hidden[layer] = (output[0] if isinstance(output, tuple) else output).to(self.batch.ids.device)
            if stop:
                raise _Enough

        return hook


class Forward:
    """The passes over one role's rows in a step, joined in the order in which the rows were drawn.

    where: for each pass, the indices of these rows in it, and their indices here.
    """

    def __init__(self, where: Sequence[tuple[Pass, Counts, Counts]]) -> None:
        self._where = where
        self._back = np.argsort(np.concatenate([here for _, _, here in where]))

    @classmethod
    def of(cls, model: PreTrainedModel, batch: Batch, hidden_at: Sequence[int] = (), logits: bool = True) -> "Forward":
        """One pass over one batch."""
        rows = np.arange(len(batch.index))
        return cls([(Pass(model, batch, hidden_at=hidden_at, logits=logits), rows, rows)])

    @cached_property
    def sum_nll(self) -> Tensor:
        """(B,) negative log-likelihood of the whole answer and its end, nats."""
        return self._rows([part.sum_nll for part, _, _ in self._where])

    @cached_property
    def count(self) -> Tensor:
        """(B,) float32, number of tokens of the answer and its end."""
        counts = [part.batch.length - part.batch.start for part, _, _ in self._where]
        device = self._where[0][0].batch.ids.device
        return self._rows([on_device(count, device).float() for count in counts])

    @property
    def mean_nll(self) -> Tensor:
        """(B,) negative log-likelihood per answer token, nats."""
        return self.sum_nll / self.count

    @cached_property
    def row(self) -> Tensor:
        """(N,) int64, row of each position that predicts an answer or its end, in drawn order."""
        rows_here = []
        for (part, _, _), mine, rows in zip(self._where, self._mine, self._places, strict=True):
            rows_here.append(on_device(rows[part.row[mine]], part.batch.ids.device))
        return torch.cat(rows_here)

    @cached_property
    def place(self) -> Tensor:
        """(N,) int64, index of the answer token that each position predicts, counted from 0."""
        places = []
        for (part, _, _), mine in zip(self._where, self._mine, strict=True):
            place = part.column[mine] + 1 - part.batch.start[part.row[mine]]
            places.append(on_device(place, part.batch.ids.device))
        return torch.cat(places)

    @cached_property
    def target(self) -> Tensor:
        """(N,) tokens to be predicted."""
        return self._tokens([part.target for part, _, _ in self._where])

    @cached_property
    def nll(self) -> Tensor:
        """(N,) negative log-likelihood of the targets, nats."""
        return self._tokens([part.nll for part, _, _ in self._where])

    @cached_property
    def logits(self) -> Tensor:
        """(N, V) in the model's dtype."""
        return self._tokens([_logits_of(part) for part, _, _ in self._where])

    def over_logits(self, function: Callable[..., Tensor], *others: Tensor) -> Tensor:
        """(N, ...) results of a function of each position's logits; where these are many, a chunk of positions at a time.

        function: maps (n, V) logits in float32 or wider, and the (n, ...) parts of the `others` at the same positions, to (n, ...).
        others: (N, ...), or (0,) where there are none; they are not differentiated.
        """
        results, start = [], 0
        for (part, _, _), mine in zip(self._where, self._mine, strict=True):
            columns_of_part = [column[start : start + len(mine)] for column in others]
            index = None if len(mine) == len(part.row) else on_device(mine, part.batch.ids.device)
            results.append(part.over_logits(function, *columns_of_part, index=index))
            start += len(mine)
        return results[0] if len(results) == 1 else torch.cat(results)

    def sum(self, tokens: Tensor) -> Tensor:
        """(B,) sums of (N,) values over each row's positions."""
        return tokens.new_zeros(len(self._back)).index_add(0, self.row, tokens)

    def mean(self, tokens: Tensor) -> Tensor:
        """(B,) means of (N,) values over each row's positions."""
        return self.sum(tokens) / self.count

    def hidden(self, layer: int) -> Tensor:
        """(B, T, D) output of transformer block `layer`, counted from 0; T is the longest row's length."""
        return self._rows([_wide(part.hidden[layer], self._width) for part, _, _ in self._where])

    def mean_over_states(self, values: Tensor) -> Tensor:
        """(B,) mean of (B, T) values over the positions that represent the answer (`Batch.answer_states`)."""
        telling = self._rows([_wide(part.batch.answer_states[..., None], self._width) for part, _, _ in self._where])[
            ..., 0
        ]
        return (values * telling).sum(1) / telling.sum(1).clamp_min(1)

    @property
    def _width(self) -> int:
        return int(max(part.batch.length[place].max() for part, place, _ in self._where))

    @cached_property
    def _places(self) -> list[Counts]:
        """Per pass: row of the batch -> row here, -1 for rows of other roles."""
        rows_of_passes = []
        for part, place, here in self._where:
            rows = np.full(len(part.batch.length), -1)
            rows[place] = here
            rows_of_passes.append(rows)
        # the passes may hold only a part of the drawn rows, which are numbered from 0 here
        taken = np.sort(np.concatenate([here for _, _, here in self._where]))
        return [np.where(rows < 0, -1, np.searchsorted(taken, rows)) for rows in rows_of_passes]

    @cached_property
    def _mine(self) -> list[Counts]:
        """Per pass: indices of the positions that belong to these rows."""
        rows = zip(self._where, self._places, strict=True)
        return [np.flatnonzero(places[part.row] >= 0) for (part, _, _), places in rows]

    def _tokens(self, values: Sequence[Tensor]) -> Tensor:
        """Values at these rows' positions, in the order of the passes."""
        pairs = zip(values, self._mine, strict=True)
        chosen = [value if len(mine) == len(value) else value[on_device(mine, value.device)] for value, mine in pairs]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen)

    def _rows(self, values: Sequence[Tensor]) -> Tensor:
        device = values[0].device
        if len(values) == 1:
            _, place, here = self._where[0]
            if len(place) == len(values[0]) and (place == here).all() and (here == np.arange(len(here))).all():
                return values[0]
        chosen = [value[on_device(place, device)] for value, (_, place, _) in zip(values, self._where, strict=True)]
        return torch.cat(chosen)[on_device(self._back, device)]


LINEAR_HEAD: "WeakSet[PreTrainedModel]" = WeakSet()
"""Models whose logits are the output of a linear layer, not changed afterwards."""
WHOLE: "WeakSet[PreTrainedModel]" = WeakSet()
"""Models whose head or last MLP must process whole rows."""


def _last_mlp(model: PreTrainedModel) -> torch.nn.Module | None:
    """The last block's MLP, which processes each position separately; None if no module has that name."""
    block = blocks(model)[-1]
    mlp = getattr(block, "mlp", None)
    # a compiled or recomputed block must not change inside
    plain = "forward" not in vars(block)
    return mlp if plain and isinstance(mlp, torch.nn.Module) and type(mlp).__name__.endswith("MLP") else None


def _logits_of(part: Pass) -> Tensor:
    assert part.logits is not None
    return part.logits


def _wide(hidden: Tensor, width: int) -> Tensor:
    if hidden.shape[1] >= width:
        return hidden[:, :width]
    return torch.nn.functional.pad(hidden, (0, 0, 0, width - hidden.shape[1]))
