"""What a phase needs and costs follows from its terms, filters, combiner, adversary and rollout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import Tensor

from froc.models.forward import Forward
from froc.training.components import Adversary, Combiner, Rollout, UpdateFilter
from froc.training.phase import Phase
from froc.training.terms import NLL, State, Term, WeightedTerm


@dataclass(frozen=True)
class Together(Term):
    """A term that needs all rows, the states of some layers, and no likelihoods."""

    needs: ClassVar[tuple[str, ...]] = ("hidden", "norm")
    needs_logits: ClassVar[bool] = False
    row_separable: ClassVar[bool] = False
    layers: tuple[int, ...] = (1,)

    @property
    def hidden_at(self) -> tuple[int, ...]:
        return self.layers

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        return forward.mean_nll


def phase(*terms: Term, **more: Any) -> Phase:
    return Phase({str(place): WeightedTerm(term) for place, term in enumerate(terms)}, **more)


@pytest.mark.parametrize(
    ("terms", "separable", "logits"),
    [
        ((NLL("forget"), NLL("retain")), True, True),
        ((NLL("forget"), Together("retain")), False, True),
        ((Together("forget"), NLL("retain")), False, True),
        ((Together("forget"), Together("retain")), False, False),
    ],
)
def test_rows_are_separable_under_every_term_and_likelihoods_are_needed_by_any(
    terms: tuple[Term, ...], separable: bool, logits: bool
) -> None:
    assert phase(*terms).row_separable is separable
    assert phase(*terms).needs_logits is logits


def test_roles_layers_and_needs_are_those_of_the_terms_of_a_role() -> None:
    made = phase(NLL("retain"), Together("forget", (3, 1)), Together("forget", (2, 1)), NLL("forget"))
    assert made.roles == ("retain", "forget")
    assert made.layers == (1, 2, 3)
    assert made.hidden_at("forget") == (1, 2, 3)
    assert made.hidden_at("retain") == ()
    assert made.needs("forget") == ("hidden", "norm")
    assert made.needs("retain") == ()


class SeparateGradients(Combiner):
    needs_gradients = True


class Probing(Combiner):
    needs_probes = True

    @property
    def n_extra_gradients(self) -> float:
        return 0.5


class Filter(UpdateFilter):
    def __call__(self, update: Any, inputs: Any) -> Any:
        return update


class ReadingFilter(Filter):
    needs_gradients = True


class Attack(Adversary):
    def against(self, model: Any, batch: Any, state: Any) -> Any:
        return batch, None


@dataclass(frozen=True)
class Written(Rollout):
    every: int = 2

    @property
    def passes(self) -> float:
        return 3.0

    def draw(self, step_context: Any, count: int) -> Any:
        return [], {}


@pytest.mark.parametrize(
    ("more", "keeps", "single", "separate"),
    [
        ({}, False, False, False),
        ({"filters": (Filter(),)}, False, False, False),
        ({"filters": (Filter(), ReadingFilter())}, True, False, True),
        ({"combiner": SeparateGradients()}, True, False, True),
        ({"combiner": Probing()}, True, False, True),
        ({"adversary": Attack(2)}, False, True, True),
        ({"rollout": Written()}, False, True, True),
    ],
)
def test_passes_are_apart_where_gradients_are_kept_or_rows_depend_on_parameters(
    more: dict[str, Any], keeps: bool, single: bool, separate: bool
) -> None:
    made = phase(NLL("forget"), NLL("retain"), **more)
    assert (made.keeps_gradients, made.single_config_only, made.separate_passes) == (keeps, single, separate)


@pytest.mark.parametrize(
    ("made", "cost"),
    [
        (phase(NLL("forget"), NLL("retain")), 1.0),
        (phase(NLL("forget")), 0.5),
        # two of eight blocks, and one role
        (phase(Together("forget", (1,)), Together("retain", (0,))), 0.25),
        (phase(NLL("forget"), NLL("retain"), combiner=Probing()), 1.5),
        # two passes over the forget rows, and over a further role of theirs
        (phase(NLL("forget"), NLL("retain"), adversary=Attack(2)), 2.0),
        (phase(NLL("forget"), NLL("refusal"), NLL("retain"), adversary=Attack(2)), 3.5),
        (phase(NLL("forget"), NLL("retain"), rollout=Written()), 2.5),
    ],
)
def test_a_step_costs_its_passes_in_units_of_two_roles(made: Phase, cost: float) -> None:
    assert made.cost(8) == pytest.approx(cost)


def test_a_phase_trains_the_parameters_in_whose_names_its_expression_is_found() -> None:
    assert phase(NLL("forget")).matches("model.layers.0.mlp.up_proj.weight")
    made = phase(NLL("forget"), trains=r"\.1\.mlp")
    assert made.matches("model.layers.1.mlp.up_proj.weight")
    assert not made.matches("model.layers.11.mlp.up_proj.weight")


def test_a_phase_by_default_takes_all_steps_at_the_methods_rate() -> None:
    made = phase(NLL("forget"))
    assert (made.step_fraction, made.phase_lr_multiplier) == (1.0, 1.0)
    with pytest.raises(TypeError, match="not both"):
        Phase({})
