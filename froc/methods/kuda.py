"""Knowledge unlearning by deviating representations (KUDA)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, softplus
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._tilted import tilted
from froc.models.forward import Forward, Pass
from froc.models.hooks import recording_inputs
from froc.models.likelihood import widened
from froc.models.process_group import divided, whole
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext
from froc.training.causal_tracing import Trace, components
from froc.training.components import UpdateFilter, UpdateInputs
from froc.training.method import Retaining
from froc.training.phase import Phase
from froc.training.terms import LayerTerm, State, WeightedTerm, Weights

MOST = 2048
"""Largest number of retain rows whose inputs are protected."""


@dataclass(frozen=True)
class Moments:
    """Eigen-decomposition of the second moments of a matrix's inputs: (D,) ascending values, (D, D) vectors in columns.

    axis: the matrix's axis that its inputs run along, 0 or 1.
    """

    axis: int
    values: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class RetainInputs(BaseModelQuery[dict[str, Moments]]):
    """Weight name -> spectrum of E[a a^T] (not centred) of the inputs a of a layer's feed-forward matrices on retain rows.

    Over all tokens of at most `MOST` rows. Matrices with the same input (gate and up projections) share one spectrum.
    """

    layer: int

    @torch.no_grad()
    def compute(self, reference: BaseStatistics) -> dict[str, Moments]:
        """Weight name -> spectrum. InputError where matrices read other inputs than whole rows, as experts do."""
        model = reference.base.model
        matrices = _matrices(model, self.layer)
        moments, same = self._moments(reference, matrices)
        kind = torch.promote_types(next(model.parameters()).dtype, torch.float32)
        spectra = {name: [part.to(kind) for part in torch.linalg.eigh(moment)] for name, moment in moments.items()}
        axes = {name: 0 if isinstance(module, Conv1D) else 1 for name, module in matrices.items()}
        return {f"{name}.weight": Moments(axis, *spectra[same[name]]) for name, axis in axes.items()}

    def _moments(
        self, reference: BaseStatistics, matrices: Mapping[str, torch.nn.Module]
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """(D, D) float64 moments of each distinct input, by the first matrix that reads it; and matrix -> that first matrix."""
        model = reference.base.model
        total: dict[str, Tensor] = {}
        same: dict[str, str] = {}
        tokens = 0
        with recording_inputs(model, matrices) as seen:
            for _, batch in reference.batches("retain", most=MOST):
                Pass(model, batch, hidden_at=(self.layer,), logits=False)
                first: dict[int, str] = {}
                same = {name: first.setdefault(inputs.data_ptr(), name) for name, inputs in seen.items()}
                for name in first.values():
                    rows = widened(seen[name].flatten(0, -2)[batch.attention.flatten().bool()])
                    total[name] = total.get(name, 0.0) + (rows.T @ rows).double()
                tokens += int(batch.length.sum())
        return {name: summed / tokens for name, summed in total.items()}, same

    def placeholder(self, context: MethodContext) -> dict[str, Moments]:
        """One matrix with equal eigenvalues."""
        spectrum = Moments(1, torch.ones(context.width), torch.eye(context.width))
        return {f"layers.{self.layer}.mlp.down_proj.weight": spectrum}


def _matrices(model: PreTrainedModel, layer: int) -> dict[str, torch.nn.Module]:
    prefixes = tuple(
        piece.prefix
        for part in components(model, heads=False, attention=False)
        if part.layer == layer
        for piece in part.pieces
    )
    kinds: Any = (torch.nn.Linear, Conv1D)
    matrices = {
        name: module
        for name, module in model.named_modules()
        if f"{name}.".startswith(prefixes) and isinstance(module, kinds)
    }
    known = {f"{name}.weight" for name in matrices}
    others = [n for n, p in model.named_parameters() if n.startswith(prefixes) and p.dim() > 1 and n not in known]
    if others or not matrices:
        raise InputError("does not know what the feed-forward matrices of this architecture read")
    return matrices


@dataclass(frozen=True)
class NullSpace(UpdateFilter):
    """Keeps the part of each matrix's update that retain inputs do not see: D <- D P.

    P projects onto the eigenvectors with eigenvalue s_i <= threshold * max s, so E|D a|^2 <= threshold |D|_F^2 E|a|^2
    over retain inputs a. At a threshold of 1 or more all directions are free; at 0 only those that no retain input
    touches, which may be none.
    """

    spectra: Mapping[str, Moments] = field(compare=False)
    threshold: float = 0.01

    def __call__(self, update: Weights, inputs: UpdateInputs) -> Weights:
        """The projected update; weight decay and momentum are projected, too."""
        if self.threshold >= 1.0:
            return update
        return {name: self._projected(change, name) for name, change in update.items()}

    def _projected(self, change: Tensor, name: str) -> Tensor:
        free, wide = self._free[name].to(change.device), widened(whole(change))
        projected = wide @ free @ free.T if self.spectra[name].axis else free @ (free.T @ wide)
        return divided(projected.to(change.dtype), change)

    @cached_property
    def _free(self) -> dict[str, Tensor]:
        """(D, free directions) per matrix. Eigenvalues ascend, so these are the first columns."""
        counts = {
            name: (moments.values <= self.threshold * moments.values[-1]).sum()
            for name, moments in self.spectra.items()
        }
        return {name: self.spectra[name].vectors[:, : int(count)] for name, count in counts.items()}


@dataclass(frozen=True)
class Deviate(LayerTerm):
    """(2 / beta) softplus(-beta (1 - cos(h, h_base))), averaged over the states that predict a row's answer.

    It is 2 ln 2 / beta at the base model (up to the tilt) and falls as states turn away. h_base is tilted by `TILT` of
    its length in one direction drawn by `seed`. The cosine's gradient is weighted by 2 sigmoid(-beta (1 - cos)): 1 at
    the start, small once a state points elsewhere.
    """

    beta: float = 1.0
    seed: int = 0

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) losses."""
        base = tilted(widened(reference["hidden"]), self.layer, self.seed)
        away = 1.0 - cosine_similarity(widened(forward.hidden(self.layer)), base, dim=-1)
        return forward.mean_over_states(2.0 / self.beta * softplus(-self.beta * away))


@dataclass(frozen=True)
class KUDA(Retaining):
    """Turn hidden states of forget rows away from the base model's, in directions that retain rows do not use.

    Causal tracing finds the `window` consecutive blocks whose feed-forwards restore most of the forget answers'
    likelihood; only their feed-forward matrices train. Loss: (2 / beta) softplus(-beta (1 - cos(h, h_base))), averaged
    over these blocks and the states that predict answers, + retain_weight * NLL(retain). Of each matrix's update only
    the part along eigenvectors of the retain inputs' second moment with at most `threshold` times the largest
    eigenvalue is kept: there the two gradients conflict.

    lr: few matrices train, and much of their update is taken away: a task's range is multiplied by five.
    window: number of blocks.
    beta: inverse temperature; a large value stops turning states that have turned already.
    threshold: 0 changes nothing for retain rows, 1 protects nothing.

    Our reading (the paper was read second-hand): the deviation's form, the retain loss's (the paper speaks of a
    retention objective whose conflict with forgetting is projected away; its form is unknown to us), noise on all tokens of a question, and projecting
    after AdamW. The paper's random-proportion sampling and two-stage search are left out.
    """

    paper: ClassVar[str] = "Fang et al. 2602.19275"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "representation"
    lr_multiplier: ClassVar[float] = 5.0

    window: int = hyperparameter(2, Range(1, 3))
    beta: float = hyperparameter(1.0, Range(0.1, 10.0, log=True))
    threshold: float = hyperparameter(0.01, Range(1e-4, 0.3, log=True))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase."""
        context.refuse_adapters("kuda")
        layers = located(context, self.window)
        spectra = {name: moments for layer in layers for name, moments in context.ask(RetainInputs(layer)).items()}
        terms = [Deviate("forget", layer, self.beta, context.seed) for layer in layers]
        parts = {f"deviate {term.layer}": WeightedTerm(term, 1.0 / len(layers)) for term in terms} | self.retain_terms()
        matrices = "|".join(re.escape(name) for name in spectra)
        filters = (NullSpace(spectra, self.threshold),)
        return (Phase(parts, filters=filters, reads=("retain",), trains=rf"^({matrices})$"),)


def located(context: MethodContext, window: int) -> tuple[int, ...]:
    """Indices of the `window` consecutive blocks whose feed-forwards have the largest mean effect on the forget answers."""
    trace = context.ask(Trace("forget", attention=False))
    effects = torch.zeros(context.layers, dtype=torch.float64)
    effects[[part.layer for part in trace.parts]] = trace.effects
    first = int(effects.unfold(0, min(window, context.layers), 1).mean(-1).argmax())
    return tuple(range(first, first + min(window, context.layers)))
