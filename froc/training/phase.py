"""One training step as a composition of parts. No method name appears here or in the training loop.

A method declares phases; a phase sums weighted *terms* (all minimised), each on the rows of one *role*. Slots:

* `Term`: per-row losses from one forward pass of its role; may need numbers of the base model (`needs`).
* `Weighter`: detached weights on a term's rows or tokens.
* `Combiner`: how the forget and the retain objective become one direction (their sum by default).
* `UpdateFilter`: changes the realised optimiser step (projection, masking).
* `Adversary`: perturbs the forget rows' passes so that the model remembers; the loss is computed under it.
* `Rollout`: rows that the model itself writes at its current parameters, with numbers such as advantages.
* `trains`: which parameters are trained. `Edit`: writes the parameters itself, in place of gradient steps.

Shapes: B rows, T tokens, N positions that predict an answer. Shift, mask and reduction happen only in
`froc.models.forward`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from froc.training.base_statistics import Role, RowSource
from froc.training.components import Adversary, Combiner, Edit, Rollout, UpdateFilter
from froc.training.terms import WeightedTerm, objective_of


@dataclass(frozen=True)
class Phase:
    """A stretch of training with the same parts, or an edit.

    parts: name -> weighted loss term; empty for an edit.
    step_fraction: fraction of all optimiser steps; an edit's rounds do not count.
    sources: role -> what makes its rows.
    reads: roles that queries, edits and rollouts read beside the terms' roles.
    only: indices of the forget rows that are drawn (and of the rows that stand for them); all by default. Fewer rows
        mean proportionally fewer steps.
    trains: regular expression, searched in parameter names.
    phase_lr_multiplier: factor on the method's learning rate.
    """

    parts: Mapping[str, WeightedTerm]
    step_fraction: float = 1.0
    combiner: Combiner = field(default_factory=Combiner)
    filters: tuple[UpdateFilter, ...] = ()
    adversary: Adversary | None = None
    rollout: Rollout | None = None
    edit: Edit | None = None
    sources: Mapping[Role, RowSource] = field(default_factory=dict)
    reads: tuple[Role, ...] = ()
    only: tuple[int, ...] | None = None
    trains: str = ""
    phase_lr_multiplier: float = 1.0

    def __post_init__(self) -> None:
        if (self.edit is None) != bool(self.parts):
            raise TypeError("a phase has parts that are trained on, or an edit, and not both")

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles of the terms, in order of declaration."""
        return tuple(dict.fromkeys(part.term.role for part in self.parts.values()))

    @property
    def needs_logits(self) -> bool:
        """Whether any term reads likelihoods."""
        return any(part.term.needs_logits for part in self.parts.values())

    @property
    def row_separable(self) -> bool:
        """Whether the gradient is a sum of independent contributions of rows."""
        return all(part.term.row_separable for part in self.parts.values())

    @property
    def keeps_gradients(self) -> bool:
        """Whether each objective's gradient is kept separately."""
        return (
            self.combiner.needs_gradients
            or self.combiner.needs_probes
            or any(update_filter.needs_gradients for update_filter in self.filters)
        )

    @property
    def separate_passes(self) -> bool:
        """Whether forget and retain rows go through the model in separate passes."""
        return self.keeps_gradients or self.single_config_only

    @property
    def single_config_only(self) -> bool:
        """Whether a pass can serve one configuration only, since rows or perturbations depend on its parameters."""
        return self.adversary is not None or self.rollout is not None

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose hidden states any term reads."""
        return tuple(sorted({layer for role in self.roles for layer in self.hidden_at(role)}))

    def hidden_at(self, role: Role) -> tuple[int, ...]:
        """Layers whose hidden states any term of this role reads."""
        layers = {layer for part in self.parts.values() if part.term.role == role for layer in part.term.hidden_at}
        return tuple(sorted(layers))

    def needs(self, role: Role) -> tuple[str, ...]:
        """Names of base-model numbers that any term of this role reads."""
        return tuple(sorted({need for part in self.parts.values() if part.term.role == role for need in part.needs}))

    def matches(self, name: str) -> bool:
        """Whether the phase trains a parameter of this name."""
        return re.search(self.trains, name) is not None

    def cost(self, layers: int) -> float:
        """Cost of a step relative to gradient difference: two roles forward and backward through all `layers` blocks."""
        depth = 1.0 if self.needs_logits else (1 + max(self.layers)) / layers
        forget = sum(objective_of(role) == "forget" for role in self.roles)
        extra = forget * (self.adversary.steps if self.adversary else 0) + (self.rollout.passes if self.rollout else 0)
        return (depth * len(self.roles) * (1 + self.combiner.n_extra_gradients) + extra) / 2
