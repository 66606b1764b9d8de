"""Methods whose terms read whole next-token distributions: the same steps, and little memory, where these are made a chunk at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor

from froc.models import likelihood
from froc.models.allocations import META
from froc.models.base import Base
from froc.models.batches import Encoded
from froc.models.compute import Engine
from froc.models.forward import LINEAR_HEAD
from froc.models.likelihood import CHUNK
from froc.models.narrowing import narrow_alike, try_narrowing
from froc.models.trainable import Full
from froc.plugins import make
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.memory_simulation import Simulation
from froc.training.method import Method
from tests.training.small import NO_TOKENIZER, encoded, llama

METHODS = ("pdu", "ceu", "kl_min", "undial", "dipo", "e2urec", "k_fade", "jensun", "whp", "tar")
LARGE = 128_256
"""Tokens of Llama 3's vocabulary."""


def _trained(name: str, linear: bool) -> Tensor:
    model = llama(40)
    try_narrowing(model)
    if not linear:
        LINEAR_HEAD.discard(model)
    rows = encoded(6, 40)
    statistics = BaseStatistics(
        Base("small", model, NO_TOKENIZER, Full(model), ""),
        TrainingRows({"forget": rows, "retain": rows[::-1], "refusal": rows[::-1]}),
    )
    method = make(Method, name, {"epochs": 2, "lr": 1e-3} if name != "k_fade" else {})
    unlearn(statistics.base, method, statistics, batch=3, seed=0)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_steps_are_the_same_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch, name: str, linear: bool) -> None:
    """Two epochs of steps; from the inputs of a linear head, and from the logits where another head caps them, say."""
    whole, sizes = _trained(name, linear), []
    monkeypatch.setattr(likelihood, "CHUNK", 120)
    split = likelihood.chunks_of

    def watched(*numbers: int) -> Any:
        parts = list(split(*numbers))
        sizes.append(len(parts))
        return parts

    monkeypatch.setattr(likelihood, "chunks_of", watched)
    chunked = _trained(name, linear)
    # the labels of Fisher factors are drawn elsewhere
    assert max(sizes, default=2) > 1
    start = torch.cat([p.detach().flatten() for p in llama(40).parameters()])
    assert float((whole - start).norm()) > 0
    assert float((chunked - whole).norm()) < 2e-3 * float((whole - start).norm())


@pytest.mark.parametrize("name", ["pdu", "ceu", "kl_min", "e2urec", "jensun"])
def test_a_step_with_a_large_vocabulary_needs_a_few_chunks(name: str) -> None:
    """Counted without values: what is beside parameters stays below a half of what the logits alone would need."""
    with META:
        model: Any = llama(LARGE, width=8, inner=16, layers=1, tie_word_embeddings=True).to(META)
    narrow_alike(model, _narrowed())
    long = [Encoded((3,) * (8 + 40), 8, 39)] * 24
    base = Base("large", model, NO_TOKENIZER, Full(model), "")
    simulation = Simulation(
        base, TrainingRows({"forget": long, "retain": long, "refusal": long}), Engine(), train="full"
    )
    options = {"teacher_epochs": 1} if name == "e2urec" else {}
    needed = simulation.needs(make(Method, name, options), 24)
    logits = 2 * 4 * 24 * 40 * LARGE
    print(f"{name}: {needed.activations / 1e6:.0f} MB, logits {logits / 1e6:.0f} MB")
    assert needed.activations < 6.5 * 4 * CHUNK < logits / 2


def _narrowed() -> Any:
    model = llama(40, tie_word_embeddings=True)
    assert try_narrowing(model)
    return model
