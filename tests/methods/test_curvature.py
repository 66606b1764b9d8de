"""Loss-curvature edits: what is kept, what is lost first, what is computed once."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Module
from transformers import LlamaConfig, LlamaForCausalLM

from froc.errors import InputError
from froc.methods.curvature import Curvature, Spectra, heaviest
from froc.models.batches import Encoded, Stack
from froc.models.forward import Forward
from froc.plugins import find, make
from froc.search.trial.runner import TrialRunner
from froc.training import fisher
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, BaseStatistics, MethodContext, TrainingRows
from froc.training.fisher import spectra
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.training.small import nll, reference


def _edited(made: BaseStatistics, **params: Any) -> dict[str, Tensor]:
    unlearn(made.base, make(Method, "curvature", params), made, batch=16, seed=1)
    return made.base.trainable.snapshot()


def _distance(made: BaseStatistics, weights: Mapping[str, Tensor]) -> float:
    start = made.base.trainable.base_values()
    return math.sqrt(sum(float((value - start[name]).square().sum()) for name, value in weights.items()))


@pytest.fixture(scope="module")
def taught() -> BaseStatistics:
    """A model of one layer that knows a rule, by which every token of 200 sentences follows from the last, and 12 random strings."""
    draw = np.random.default_rng(0)
    after = dict(zip(range(1, 40), draw.permutation(np.arange(1, 40)).tolist(), strict=True))
    general = []
    for _ in range(200):
        ids = [int(draw.integers(1, 40))]
        while len(ids) < 8:
            ids.append(after[ids[-1]])
        general.append(Encoded(tuple(ids), 2, 6))
    known = [Encoded(tuple(draw.integers(1, 40, 8).tolist()), 2, 6) for _ in range(12)]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=16, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=8e-3)
    stack = Stack([*known, *general], "cpu")
    for _ in range(160):
        index = [*range(12), *draw.integers(12, 212, 16).tolist()]
        Forward.of(model, stack.batch(index)).mean_nll.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    made = reference(model, known, general)
    assert max(nll(made, "forget"), nll(made, "retain")) < 0.03
    return made


def test_all_of_the_curvature_is_the_model_itself_and_less_is_ever_farther(taught: BaseStatistics) -> None:
    """Also where factors are of less than full rank: the 6 answer tokens of one row have at most 6 directions."""
    few = BaseStatistics(
        taught.base, TrainingRows({"forget": taught.pools.rows["forget"], "retain": taught.pools.rows["retain"][:1]})
    )
    for made in (taught, few):
        same = _edited(made, mass=1.0, matrices="both", rows="retain")
        assert (
            max(float((value - made.base.trainable.base_values()[name]).abs().max()) for name, value in same.items())
            < 1e-5
        )
    far = [_distance(taught, _edited(taught, mass=mass)) for mass in (1.0, 0.99, 0.9, 0.7, 0.5, 0.4)]
    assert far == sorted(far)
    assert far[0] < 1e-4 < far[1] < far[-1]
    taught.base.restore()


def test_the_pairs_kept_are_the_fewest_that_hold_the_mass() -> None:
    """G (x) A of eigenvalues 4, 1 and 3, 1, by hand: products 12, 4, 3, 1 of 20."""
    spectrum = fisher.Spectrum(torch.tensor([1.0, 4.0]), torch.eye(2), torch.tensor([1.0, 3.0]), torch.eye(2))
    # rows are outputs: [[1, 3], [4, 12]]
    assert heaviest(spectrum, 0.5).tolist() == [[False, False], [False, True]]
    assert heaviest(spectrum, 0.7).tolist() == [[False, False], [True, True]]
    assert heaviest(spectrum, 0.9).tolist() == [[False, True], [True, True]]
    assert heaviest(spectrum, 0.96).tolist() == [[True, True], [True, True]]


def test_what_is_known_by_heart_is_lost_before_what_follows_a_rule(taught: BaseStatistics) -> None:
    """Both are known equally well before. And the rows aimed at are lost sooner where they have no part in the factors."""
    roles = taught.pools.rows
    taught.base.restore()
    before = {role: nll(taught, role) for role in roles}
    masses, risen = (0.9, 0.7, 0.5), {}
    for aim in ("all", "retain"):
        for mass in masses:
            _edited(taught, mass=mass, rows=aim, matrices="both")
            risen[aim, mass] = {role: nll(taught, role) - before[role] for role in roles}
    taught.base.restore()
    assert all(rise["forget"] > 5 * rise["retain"] for rise in risen.values())
    assert all(risen["retain", mass]["forget"] > risen["all", mass]["forget"] for mass in masses)
    assert risen["all", 0.5]["forget"] > 0.4
    assert risen["all", 0.5]["retain"] < 0.1


def test_factors_are_formed_once_and_windows_that_overlap_share_them(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    formed: list[set[str]] = []
    plain = spectra

    def counted(model: Any, layers: Mapping[str, Module], *rest: Any) -> Any:
        formed.append(set(layers))
        return plain(model, layers, *rest)

    monkeypatch.setattr("froc.methods.curvature.spectra", counted)
    made = BaseStatistics(
        bench.base, TrainingRows({role: bench.reference.pools.rows[role][:8] for role in ("forget", "retain")})
    )
    for params in (
        {"mass": 0.5, "width": 1, "start": 0.0},
        {"mass": 0.9, "width": 1, "start": 0.0},
        {"mass": 0.9, "width": 2},
    ):
        _edited(made, **params)
    bench.base.restore()
    assert len(formed) == 2
    assert all(".0." in name for name in formed[0])
    assert all(".1." in name for name in formed[1])
    assert find(Method, "curvature").cost() == 0
    assert MethodContext(4, 8, 0).ask(Spectra("x", ("retain",))) == {}


def test_it_needs_the_models_own_matrices() -> None:
    with pytest.raises(InputError, match="--train full"):
        Curvature().phases(MethodContext(2, 8, 0, adapters=True))
    assert Curvature().phases(PLACEHOLDER_CONTEXT)[0].reads == ("retain",)
