"""Causal tracing: by how much one part's clean output restores the likelihood of answers after the question is corrupted.

Parts are feed-forwards and attention heads, or whole attentions where an architecture fuses its projections. All tokens
of a question are corrupted, since nothing marks the subject, by Gaussian noise on their embeddings (Meng et al.
2202.05262 corrupt the subject's). Shapes: B rows, T tokens, D width, P parts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc import hashing
from froc.errors import InputError
from froc.models.batches import Batch
from froc.models.forward import Pass
from froc.models.hooks import blocks, blocks_path, output_changed, uncompiled
from froc.models.process_group import called
from froc.training.base_statistics import BaseModelQuery, Role

if TYPE_CHECKING:
    from froc.training.base_statistics import BaseStatistics, MethodContext

NOISE = 3.0
"""Standard deviation of the corruption, in units of that of the questions' embeddings (2202.05262)."""
MOST = 128
"""Largest number of rows per role that are traced."""
FEW = 64
"""Largest number of parts that are patched one by one."""
FEED_FORWARDS = ("mlp", "feed_forward", "ffn")
ATTENTIONS = ("self_attn", "attention", "attn", "self_attention")
OUTPUTS = ("o_proj", "out_proj", "dense")
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Piece:
    """Parameters whose names begin with `prefix`: the slice from `start` to `stop` along `axis`, or all (axis None)."""

    prefix: str
    axis: int | None = None
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Component:
    """A part of block `layer`.

    place: path of the module whose output is the part's; for a head, of the module whose input holds it.
    pieces: its parameters. Heads of grouped-query attention share those of their keys and values.
    columns: slice of that input; None for whole outputs.
    """

    kind: Literal["feed_forward", "attention", "head"]
    layer: int
    place: str
    pieces: tuple[Piece, ...]
    columns: tuple[int, int] | None = None


@dataclass(frozen=True)
class Traced:
    """The effect of each part.

    parts: the P parts.
    effects: (P,) float64, mean over rows of what each part alone restores, nats per answer token.
    total: clean minus corrupted log-likelihood, nats per answer token: what all parts together would restore.
    """

    parts: tuple[Component, ...]
    effects: Tensor
    total: float


@dataclass(frozen=True)
class Trace(BaseModelQuery[Traced]):
    """Query: the effects of a model's parts on a role's rows.

    heads: whether attentions are split into heads.
    attention: whether attentions are traced at all.
    steps: 0 patches part by part, one pass each; K >= 1 attributes by gradients at K points between corrupted and clean
        embeddings, K forward and backward passes; None patches up to `FEW` parts and otherwise attributes with 4
        points.
    seed: of the corruption.
    """

    role: Role
    heads: bool = False
    attention: bool = True
    steps: int | None = None
    seed: int = 0

    def compute(self, reference: "BaseStatistics") -> Traced:
        """Effects on at most `MOST` rows."""
        model = reference.base.model
        parts = components(model, heads=self.heads, attention=self.attention)
        draw = torch.Generator().manual_seed(hashing.derive_seed("corruption", self.role, self.seed))
        batches = [batch for _, batch in reference.batches(self.role, most=MOST)]
        level = NOISE * _embedding_sd(model, batches)
        effects, total = torch.zeros(len(parts), dtype=torch.float64), 0.0
        rows = sum(len(batch.length) for batch in batches)
        steps = (0 if len(parts) <= FEW else 4) if self.steps is None else self.steps
        with uncompiled(model):
            for batch in batches:
                runs = _Runs(model, parts, batch, level, draw)
                effects += runs.attributed(steps) if steps else runs.patched()
                total += runs.clean - runs.corrupted
        return Traced(parts, effects / rows, total / rows)

    def placeholder(self, context: "MethodContext") -> Traced:
        """Feed-forwards of equal effect."""
        parts = tuple(_feed_forward(layer, f"layers.{layer}", ("mlp",)) for layer in range(context.layers))
        return Traced(parts, torch.ones(len(parts), dtype=torch.float64), 1.0)


def components(model: PreTrainedModel, *, heads: bool, attention: bool = True) -> tuple[Component, ...]:
    """A model's parts, block by block, attention first; InputError where no part has a known name."""
    root = blocks_path(model)
    parts: list[Component] = []
    for layer, block in enumerate(blocks(model)):
        inside, path = dict(block.named_children()), f"{root}.{layer}"
        for name in [name for name in ATTENTIONS if name in inside and attention][:1]:
            whole = Component("attention", layer, f"{path}.{name}", (Piece(f"{path}.{name}."),))
            parts += (heads and _heads(layer, whole.place, inside[name], model)) or (whole,)
        for names in [names for names in (*((name,) for name in FEED_FORWARDS), ("fc1", "fc2")) if names[-1] in inside][
            :1
        ]:
            parts.append(_feed_forward(layer, path, names))
    if not parts:
        raise InputError("does not know the parts of this architecture's blocks")
    return tuple(parts)


def _feed_forward(layer: int, path: str, names: tuple[str, ...]) -> Component:
    return Component("feed_forward", layer, f"{path}.{names[-1]}", tuple(Piece(f"{path}.{name}.") for name in names))


def _heads(layer: int, path: str, attention: torch.nn.Module, model: PreTrainedModel) -> tuple[Component, ...]:
    """The heads of an attention with separate query, key, value and output matrices; () for other attentions."""
    inside: dict[str, Any] = dict(attention.named_children())
    out = next((name for name in OUTPUTS if name in inside), "")
    if not all(isinstance(inside.get(name), torch.nn.Linear) for name in ("q_proj", "k_proj", "v_proj", out)):
        return ()
    count = int(model.config.get_text_config().num_attention_heads)
    size = inside[out].in_features // count
    groups = inside["k_proj"].out_features // size
    # some architectures store gates with the queries, or have values of another width
    if (
        inside["q_proj"].out_features != count * size
        or inside["v_proj"].out_features != groups * size
        or count % groups
    ):
        return ()

    def rows(name: str, index: int) -> list[Piece]:
        parameters = dict(inside[name].named_parameters())
        return [Piece(f"{path}.{name}.{parameter}", 0, index * size, (index + 1) * size) for parameter in parameters]

    heads = []
    for head in range(count):
        columns, group = (head * size, (head + 1) * size), head * groups // count
        pieces = (*rows("q_proj", head), *rows("k_proj", group), *rows("v_proj", group))
        output = Piece(f"{path}.{out}.weight", 1, *columns)
        heads.append(Component("head", layer, f"{path}.{out}", (*pieces, output), columns))
    return tuple(heads)


class _Runs:
    """A batch's clean and corrupted runs. clean, corrupted: log-likelihoods in nats per answer token, summed over rows."""

    def __init__(
        self, model: PreTrainedModel, parts: Sequence[Component], batch: Batch, level: float, draw: torch.Generator
    ) -> None:
        self._model, self._parts, self._batch = model, parts, batch
        self._modules = {part.place: model.get_submodule(part.place) for part in parts}
        self._inputs = {part.place for part in parts if part.columns is not None}
        embeddings: Any = model.get_input_embeddings()
        noise = level * torch.randn(*batch.ids.shape, embeddings.weight.shape[-1], generator=draw)
        self._noise = noise.to(batch.ids.device) * _question(batch)[..., None]
        self._states: dict[str, Tensor] = {}
        with torch.no_grad():
            self.clean = float(self._run(0.0, {place: self._keep(place) for place in self._modules}))
            self.corrupted = float(self._run(1.0, {}))

    @torch.no_grad()
    def patched(self) -> Tensor:
        """(P,) what each part restores, summed over rows; one pass per part."""
        loglik = [float(self._run(1.0, {part.place: self._restore(part)})) for part in self._parts]
        return torch.tensor(loglik, dtype=torch.float64) - self.corrupted

    def attributed(self, steps: int) -> Tensor:
        """(P,) the same to first order: clean minus corrupted states, times the mean gradient between them."""
        total = {place: torch.zeros_like(state) for place, state in self._states.items()}
        with torch.no_grad():
            away: dict[str, Tensor] = {}
            self._run(1.0, {place: self._keep(place, away) for place in self._modules})
        for step in range(steps):
            probes = {place: torch.zeros_like(state).requires_grad_() for place, state in self._states.items()}
            with torch.enable_grad():
                loglik = self._run(1.0 - (step + 0.5) / steps, {place: probe.add for place, probe in probes.items()})
            for place, grad in zip(probes, torch.autograd.grad(loglik, list(probes.values())), strict=True):
                total[place] += grad / steps
        sums = {
            place: ((state - away[place]) * total[place]).flatten(0, -2).sum(0, dtype=torch.float64).cpu()
            for place, state in self._states.items()
        }
        return torch.stack([sums[part.place][slice(*(part.columns or (None,)))].sum() for part in self._parts])

    def _run(self, share: float, changes: Mapping[str, Change]) -> Tensor:
        """() log-likelihood. share: of the noise that is added. changes: place -> change of the state there."""
        with ExitStack() as hooks:
            embeddings = self._model.get_input_embeddings()
            hooks.enter_context(output_changed(embeddings, lambda out: out + (share * self._noise).to(out.dtype)))
            for place, change in changes.items():
                put = _input_changed if place in self._inputs else output_changed
                hooks.enter_context(put(self._modules[place], change))
            result = Pass(self._model, self._batch, end=False, rows_stay=True)
        count = torch.from_numpy(self._batch.stop - self._batch.start).to(result.sum_nll)
        return -(result.sum_nll / count).sum()

    def _keep(self, place: str, states: dict[str, Tensor] | None = None) -> Change:
        kept = self._states if states is None else states

        def keep(state: Tensor) -> Tensor:
            kept[place] = state
            return state

        return keep

    def _restore(self, part: Component) -> Change:
        clean = self._states[part.place]

        def restore(state: Tensor) -> Tensor:
            if part.columns is None:
                return clean
            start, stop = part.columns
            return torch.cat([state[..., :start], clean[..., start:stop], state[..., stop:]], -1)

        return restore


@contextmanager
def _input_changed(module: torch.nn.Module, change: Change) -> Iterator[None]:
    """Context manager: a module's input passes through `change`."""
    handle = module.register_forward_pre_hook(lambda _module, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _embedding_sd(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Standard deviation of the embeddings of all questions' tokens, over tokens and dimensions."""
    tokens = torch.cat([batch.ids[_question(batch)] for batch in batches])
    ids, counts = tokens.unique(return_counts=True)
    embeddings = called(model.get_input_embeddings(), ids).double()
    share = (counts / counts.sum())[:, None] / embeddings.shape[1]
    mean = (share * embeddings).sum()
    return float((share * (embeddings - mean) ** 2).sum().sqrt())


def _question(batch: Batch) -> Tensor:
    """(B, T) bool, tokens before the answer."""
    start = torch.from_numpy(batch.start).to(batch.ids.device)
    return torch.arange(batch.ids.shape[1], device=batch.ids.device) < start[:, None]
