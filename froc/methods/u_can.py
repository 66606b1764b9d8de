"""Contrastive attenuation of neurons (U-CAN)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._matrices import feedforward, writing
from froc.models.forward import Pass
from froc.models.hooks import blocks, recording_inputs
from froc.models.likelihood import widened
from froc.models.process_group import edited, whole
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext, Role
from froc.training.components import Edit, StepContext
from froc.training.fisher import as_out_in, linear_layers
from froc.training.method import Method
from froc.training.phase import Phase


@dataclass(frozen=True)
class Neurons:
    """Scores of a matrix's inputs ("neurons"), each (in,) float64 on the CPU in [0, 1] with a maximum of 1.

    risk: by how much a neuron's mean activation on forget rows exceeds that on retain rows.
    utility: how much it writes on retain rows.
    """

    risk: Tensor
    utility: Tensor


@dataclass(frozen=True)
class Contrast(BaseModelQuery[Mapping[str, Neurons]]):
    """Weight name -> its neurons, for the output matrices of all attentions and feed-forwards."""

    @torch.no_grad()
    def compute(self, reference: BaseStatistics) -> Mapping[str, Neurons]:
        """One pass over forget and retain rows. InputError if no matrix matches, or one reads other inputs than whole rows."""
        model = reference.base.model
        pattern = writing(range(len(blocks(model))))
        layers = linear_layers(model, [name for name, _ in model.named_parameters() if re.search(pattern, name)])
        if not layers:
            raise InputError("does not know the matrices of this architecture's blocks")
        forget, retain = _sizes(reference, "forget", layers), _sizes(reference, "retain", layers)
        neurons = {}
        for name, layer in layers.items():
            columns = as_out_in(layer, whole(layer.get_parameter("weight").detach())).double().norm(dim=0).cpu()
            risk = (forget[name][0] - retain[name][0]).clamp_min(0.0)
            neurons[name] = Neurons(_scaled(risk), _scaled(columns * retain[name][1].sqrt()))
        return neurons

    def placeholder(self, context: MethodContext) -> Mapping[str, Neurons]:
        """No matrices."""
        return {}


def _sizes(reference: BaseStatistics, role: Role, layers: Mapping[str, Module]) -> dict[str, Tensor]:
    """Layer -> (2, in) means of |a| and a^2 of its inputs a, over the states that predict the role's answers (`Batch.answer_states`)."""
    total: dict[str, Tensor] = {}
    count = 0
    with recording_inputs(reference.base.model, layers) as seen:
        for _, batch in reference.batches(role):
            # whole rows: given only the predicting positions, a layer would mix rows
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
    """Scales down what neurons write whose score is above a quantile."""

    neurons: Mapping[str, Neurons]
    strength: float
    threshold: float
    caution: float

    @torch.no_grad()
    def __call__(self, step_context: StepContext) -> None:
        """Edits the weights in place; see `UCAN`. The quantile is over the layers that may change."""
        scores = {
            name: neurons.risk - self.caution * neurons.utility
            for name, neurons in self.neurons.items()
            if name in step_context.parameters
        }
        least = torch.cat(list(scores.values())).quantile(self.threshold)
        for name, layer in linear_layers(step_context.reference.base.model, list(scores)).items():
            with edited(step_context.parameters[name]) as matrix:
                weight = as_out_in(layer, matrix)
                wide = widened(weight)
                weight.copy_(wide * attenuation(scores[name], float(least), self.strength).to(wide))


def attenuation(scores: Tensor, least: float, strength: float) -> Tensor:
    """(n,) factors in (0, 1]: exp(-strength (score - least)) where the score is above `least`, else 1."""
    return torch.exp(-strength * (scores - least).clamp_min(0.0))


@dataclass(frozen=True)
class UCAN(Method):
    """Scale down neurons that forget rows use and retain rows do not need; one pass over all rows, no training.

    Column j of each matrix W becomes s_j W_j with s_j = exp(-strength (R_j - t)) where R_j > t, else 1. The score is
    R_j = r_j - caution u_j with risk r_j = max(0, E_f|a_j| - E_r|a_j|) and utility u_j = |W_j| sqrt(E_r a_j^2), both
    divided by the matrix's largest; a are the matrix's inputs where answers are predicted. t is the quantile
    `threshold` of all R.

    strength: decay of the factors per unit of score.
    threshold: share of the neurons that stay unchanged.
    caution: weight of the utility.
    matrices: output matrices of the feed-forwards (`feedforward`), or of attentions as well (`writing`).

    Our reading (the paper was read second-hand): the paper attenuates neurons of adapters trained on the data to be
    forgotten; here the model's own matrices replace them, since adapters are merged and a trial's new ones are empty.
    Positions, norms and decay are ours, too. A neuron that forget and retain rows share is scaled down for both.
    """

    paper: ClassVar[str] = "2602.23400"
    fidelity: ClassVar[Fidelity] = "reading"
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
