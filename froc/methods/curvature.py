"""Weight edit along directions of high loss curvature."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._matrices import feedforward, window
from froc.models.batches import Encoded
from froc.models.likelihood import widened
from froc.models.process_group import edited
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext, Role
from froc.training.components import Edit, StepContext
from froc.training.fisher import Spectrum, as_out_in, linear_layers, spectra
from froc.training.method import Method
from froc.training.phase import Phase

MOST = 4096
"""Largest number of rows per role that the factors are formed on, approximately."""
ROLES: Mapping[str, tuple[Role, ...]] = {"all": ("forget", "retain"), "retain": ("retain",)}


@dataclass(frozen=True)
class _Known(BaseModelQuery[dict[str, Spectrum]]):
    """Spectra computed so far on rows of these roles, by weight name; overlapping layer windows share them."""

    roles: tuple[Role, ...]

    def compute(self, reference: BaseStatistics) -> dict[str, Spectrum]:
        """An empty cache."""
        return {}

    def placeholder(self, context: MethodContext) -> dict[str, Spectrum]:
        """An empty cache."""
        return {}


@dataclass(frozen=True)
class Spectra(BaseModelQuery[Mapping[str, Spectrum]]):
    """Weight name -> its spectrum on rows of these roles, for all linear layers whose weight names match `pattern`."""

    pattern: str
    roles: tuple[Role, ...]

    def compute(self, reference: BaseStatistics) -> Mapping[str, Spectrum]:
        """One forward and backward pass for spectra not known yet; labels are sampled by the task's seed."""
        rows: list[Encoded] = []
        for role in self.roles:
            reference.ensure(role)
            role_rows = reference.pools.rows[role]
            rows += role_rows[:: max(1, -(-len(role_rows) // MOST))]
        model = reference.base.model
        layers = linear_layers(model, [name for name, _ in model.named_parameters() if re.search(self.pattern, name)])
        known = reference.ask(_Known(self.roles))
        new = {name: layer for name, layer in layers.items() if name not in known}
        if new:
            computed = spectra(model, new, rows, reference.pools.seed)
            known |= {name: spectrum.on_host() for name, spectrum in computed.items()}
        return {name: known[name] for name in layers}

    def placeholder(self, context: MethodContext) -> Mapping[str, Spectrum]:
        """No spectra."""
        return {}


@dataclass(frozen=True)
class KeepCurved(Edit):
    """Keeps the components of each matrix that have the most curvature, up to the share `mass` of its total."""

    spectra: Mapping[str, Spectrum]
    mass: float

    @torch.no_grad()
    def __call__(self, step_context: StepContext) -> None:
        """Edits the weights in place; see `Curvature`."""
        layers = linear_layers(step_context.reference.base.model, list(step_context.parameters))
        for name, layer in layers.items():
            spectrum = self.spectra[name]
            with edited(step_context.parameters[name]) as matrix:
                weight = as_out_in(layer, matrix)
                turned = spectrum.to_eigenbasis(widened(weight))
                weight.copy_(spectrum.from_eigenbasis(turned * heaviest(spectrum, self.mass).to(turned.device)))


def heaviest(spectrum: Spectrum, mass: float) -> Tensor:
    """(out, in) bool mask of the fewest eigenvector pairs whose products of eigenvalues sum to the share `mass`.

    At a mass of 1 or more all pairs are kept.
    """
    product = torch.outer(spectrum.output_values, spectrum.input_values).double()
    if mass >= 1.0:
        return torch.ones_like(product, dtype=torch.bool)
    values, order = product.flatten().sort(descending=True, stable=True)
    total = values.cumsum(0)
    kept = torch.zeros(product.numel(), dtype=torch.bool)
    kept[order[: int(torch.searchsorted(total, mass * total[-1])) + 1]] = True
    return kept.reshape(product.shape)


@dataclass(frozen=True)
class Curvature(Method):
    """Remove weight components of low loss curvature, where memorised rows lie; keep the curved ones that many rows share.

    W' = U_G (M o U_G' W U_A) U_A' for each feed-forward matrix W, with no training. U_A and U_G are the eigenvectors of
    A = E[x x'] (inputs x) and G = E[g g'] (output gradients g). M keeps the pairs with the largest products of
    eigenvalues that together make up `mass` of the sum.

    mass: share of the curvature that is kept.
    start: position of the layer window, 0 for the first layers, 1 for the last.
    width: number of neighbouring layers.
    matrices: those that read the hidden states (`into`), write to them (`out`), or `both`.
    rows: rows that the factors are formed on: `all` (the authors take general text) or `retain`, our reading of how to
        aim the edit: what only forget rows need is flat there.

    Our reading: the task's rows replace the authors' general text, losses are over answer tokens only, and factors are
    formed once per task.
    """

    paper: ClassVar[str] = "Merullo et al. 2510.24256"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "edit"

    lr: float = 0.0
    epochs: int = 0
    mass: float = hyperparameter(0.6, Range(0.4, 0.99))
    start: float = hyperparameter(0.8, Range(0.0, 1.0))
    width: int = hyperparameter(3, Range(1, 3))
    matrices: str = hyperparameter("into", Choice(("into", "out", "both")))
    rows: str = hyperparameter("retain", Choice(("all", "retain")))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One edit."""
        context.refuse_adapters("curvature")
        pattern, roles = feedforward(self.matrices, window(context.layers, self.start, self.width)), ROLES[self.rows]
        known = context.ask(Spectra(pattern, roles))
        return (Phase({}, edit=KeepCurved(known, self.mass), trains=pattern, reads=roles),)
