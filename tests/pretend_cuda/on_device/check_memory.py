"""Bytes on the device and between it and the host."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from froc.measuring.measurement import measurement
from froc.measuring.model_observation import _tokens
from froc.models.batches import Encoded, Stack
from froc.models.forward import Pass, try_narrowing
from froc.models.likelihood import CHUNK
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from tests.pretend_cuda import device

if TYPE_CHECKING:
    from froc.data.splits import Sealed, SearchView
    from froc.models.base import Base

LARGE = 50_000
"""Tokens of a vocabulary beside which everything else is small."""


def test_a_trial_moves_its_weights_between_host_and_device_less_than_once(
    on_cuda: "Base", parts: "tuple[SearchView, Sealed]"
) -> None:
    """Its sweep moved them 19 times before stops stayed on the device; where that is too small, only what trained is moved."""
    extraction = measurement("extraction_strength")
    runner = TrialRunner(
        on_cuda, parts[0], dict.fromkeys(("forgetting", "utility"), extraction), batch=16, seed=0,
        limits={"forgetting": 0.6, "utility": 0.6},
    )  # fmt: skip
    weights = sum(p.nbytes for p in on_cuda.model.parameters())

    def moved(method: str, **parameters: float) -> float:
        device.reset_counts()
        outcome = runner.run([TrialSpec(method, {"lr": 3e-3, "epochs": 9, **parameters}, 4)], [lambda *_: False])[0]
        assert outcome.status == "complete"
        counts = device.counts()
        return (counts["bytes_to_device"] + counts["bytes_to_host"]) / weights

    assert moved("npo", retain_weight=3.0) < 0.6
    device.limit(device.peak())
    assert moved("npo", retain_weight=3.0, epochs=3) > 3
    assert moved("rmu", epochs=3) < 1.5


@pytest.fixture(scope="module")
def large_vocabulary() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=LARGE, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        tie_word_embeddings=False, pad_token_id=None, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    made: Any = LlamaForCausalLM(config)
    model: PreTrainedModel = made.to("cuda").eval()
    assert try_narrowing(model)
    return model


def _rows(count: int, answer: int) -> list[Encoded]:
    return [Encoded((3,) * (8 + answer), 8, answer - 1) for _ in range(count)]


def _peak(work: Callable[[], object]) -> int:
    before = device.allocated()
    device.reset_peak()
    work()
    return device.peak() - before


def test_no_tensor_is_as_large_as_the_logits_of_a_large_vocabulary(large_vocabulary: PreTrainedModel) -> None:
    """A step and a look with whole distributions peak at a few chunks, where logits alone would be `whole` bytes; and few
    kernels are launched, without a wait in them."""
    rows = _rows(30, 40)
    whole = 30 * 40 * LARGE * 4
    batch = Stack(rows, torch.device("cuda")).batch(range(len(rows)))
    result = Pass(large_vocabulary, batch)

    def step() -> None:
        result.nll.sum().backward()

    with device.watching() as places:
        assert _peak(step) < 3 * 4 * CHUNK < whole
    assert not places
    assert device.counts()["launches"] < whole / LARGE / 4
    look = _peak(lambda: _tokens(large_vocabulary, rows, 256, True, False))
    assert look < 5 * 4 * CHUNK < 2 * whole
