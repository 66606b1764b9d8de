"""Contrastive attenuation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from froc.errors import InputError
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._matrices import feedforward, writing
from froc.models.forward import Pass
from froc.models.hooks import blocks, recording_inputs
from froc.models.likelihood import widened
from froc.training.base_statistics import BaseModelQuery, MethodContext, Role
from froc.training.components import Edit, StepContext
from froc.training.fisher import as_out_in, linear_layers
from froc.training.method import Method
from froc.training.phase import Phase

if TYPE_CHECKING:
    from froc.training.base_statistics import BaseStatistics


@dataclass(frozen=True)
class Neurons:
    """What a matrix reads. Both (in,) in [0, 1], float64 on the CPU, the largest being 1.

    risk: how much larger they are on forget rows than on retain rows. utility: how much each writes on retain rows.
    """

    risk: Tensor
    utility: Tensor


@dataclass(frozen=True)
class Contrast(BaseModelQuery[Mapping[str, Neurons]]):
    """Name of a weight -> its neurons, for the last matrices of all attentions and feed-forwards."""

    @torch.no_grad()
    def compute(self, reference: "BaseStatistics") -> Mapping[str, Neurons]:
        """One pass over forget and retain rows; InputError where no matrix is found or one sees others than whole rows."""
        model = reference.base.model
        pattern = writing(range(len(blocks(model))))
        layers = linear_layers(model, [name for name, _ in model.named_parameters() if re.search(pattern, name)])
        if not layers:
            raise InputError("does not know the matrices of this architecture's blocks")
        forget, retain = _sizes(reference, "forget", layers), _sizes(reference, "retain", layers)
        neurons = {}
        for name, layer in layers.items():
            columns = as_out_in(layer, layer.get_parameter("weight").detach()).double().norm(dim=0).cpu()
            risk = (forget[name][0] - retain[name][0]).clamp_min(0.0)
            neurons[name] = Neurons(_scaled(risk), _scaled(columns * retain[name][1].sqrt()))
        return neurons

    def placeholder(self, context: MethodContext) -> Mapping[str, Neurons]:
        """None."""
        return {}


def _sizes(reference: "BaseStatistics", role: Role, layers: Mapping[str, Module]) -> dict[str, Tensor]:
    """Layer -> (2, in) means of |a| and a^2 of what it reads, over the states that predict a role's answers (`Batch.answer_states`)."""
    total: dict[str, Tensor] = {}
    count = 0
    with recording_inputs(reference.base.model, layers) as seen:
        for _, batch in reference.batches(role):
            # whole rows: a layer that sees the predicting positions alone mixes rows
            Pass(reference.base.model, batch, rows_stay=True)
            for name, inputs in seen.items():
                if inputs.shape[:-1].numel() != batch.ids.numel():
                    raise InputError(
                        "this architecture sends parts of a row through its linear layers; the method does not fit it"
                    )
                a = widened(inputs.reshape(*batch.ids.shape, -1)[batch.answer_states])
                sums = torch.stack([a.abs().sum(0), a.square().sum(0)]).double().cpu()
                total[name] = total[name] + sums if name in total else sums
            count += int(batch.answer_states.sum())
    return {name: sums / count for name, sums in total.items()}


def _scaled(values: Tensor) -> Tensor:
    return values / values.max().clamp_min(1e-12)


@dataclass(frozen=True)
class Attenuate(Edit):
    """Neurons above a quantile of what speaks for their attenuation are made to write less."""

    neurons: Mapping[str, Neurons]
    strength: float
    threshold: float
    caution: float

    @torch.no_grad()
    def __call__(self, step_context: StepContext) -> None:
        """See `UCAN`. The quantile is that of the layers that may move."""
        scores = {
            name: neurons.risk - self.caution * neurons.utility
            for name, neurons in self.neurons.items()
            if name in step_context.parameters
        }
        least = torch.cat(list(scores.values())).quantile(self.threshold)
        for name, layer in linear_layers(step_context.reference.base.model, list(scores)).items():
            weight = as_out_in(layer, step_context.parameters[name])
            wide = widened(weight)
            weight.copy_(wide * attenuation(scores[name], float(least), self.strength).to(wide))


def attenuation(scores: Tensor, least: float, strength: float) -> Tensor:
    """(n,) in (0, 1]: exp(-strength (score - least)) of those above `least`, 1 of the others."""
    return torch.exp(-strength * (scores - least).clamp_min(0.0))


@dataclass(frozen=True)
class UCAN(Method):
    """Turn down the neurons that forget rows use and retain rows do without: no training, one pass over all rows.

    s_j = exp(-strength (R_j - t)) where R_j > t, else 1, and column j of a matrix becomes s_j W_j. R_j = r_j - caution u_j;
    r_j: E_f |a_j| - E_r |a_j|, 0 at least, of what the matrix reads where answers are predicted, forget and retain rows; u_j:
    |W_j| times the root of E_r a_j^2; both divided by the matrix's largest. t: the quantile `threshold` of all R. matrices: the last
    ones of the feed-forwards, or of attentions, too (`writing`).
    The paper turns down neurons of adapters that were trained on what is to be forgotten. A model that comes here has such
    adapters merged, and a trial's own are new, with nothing in them: that matrices of the model stand for them is our reading, as
    are the positions, the norms and the decay, since the paper was read second-hand. What is shared is turned down for all.
    """

    paper: ClassVar[str] = "2602.23400"
    family: ClassVar[str] = "edit"

    lr: float = 0.0
    epochs: int = 0
    strength: float = hyperparameter(20.0, Range(1.0, 100.0, log=True))
    threshold: float = hyperparameter(0.7, Range(0.3, 0.99))
    caution: float = hyperparameter(0.3, Range(0.0, 2.0))
    matrices: str = hyperparameter("writing", Choice(("feedforward", "writing")))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One edit."""
        context.refuse_adapters("u_can")
        every = range(context.layers)
        pattern = writing(every) if self.matrices == "writing" else feedforward("out", every)
        edit = Attenuate(context.ask(Contrast()), self.strength, self.threshold, self.caution)
        return (Phase({}, edit=edit, trains=pattern, reads=("forget", "retain")),)
