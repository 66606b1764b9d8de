"""What an 8B model's training needs, counted on the meta device; tests/pretend_cuda/on_device/check_memory.py holds the counts to an allocator."""

from functools import cache
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from froc.models.allocations import META
from froc.models.base import Base
from froc.models.batches import Encoded
from froc.models.compute import Engine
from froc.models.forward import LINEAR_HEAD
from froc.models.memory_needs import GB, MemoryNeeds, moment_bytes
from froc.models.trainable import Full
from froc.plugins import make
from froc.training.base_statistics import TrainingRows
from froc.training.memory_simulation import Simulation
from froc.training.method import Method

PARAMETERS = 8_030_261_248
"""Of Llama 3.1 8B."""
BATCH, TOKENS, ANSWER = 32, 80, 30


@cache
def _base() -> Base:
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=False,
    )  # fmt: skip
    with META:
        model: Any = LlamaForCausalLM(config)
    # its head is a linear layer; without values that cannot be tested
    LINEAR_HEAD.add(model)
    no_tokenizer: Any = None
    return Base("8B", model.eval(), no_tokenizer, Full(model), "")


def _needs(
    train: str, dtype: torch.dtype, autocast: torch.dtype | None, optimizer: str = "adamw", **more: Any
) -> MemoryNeeds:
    rows = [Encoded((1,) * TOKENS, TOKENS - ANSWER, ANSWER - 1)] * (2 * BATCH)
    simulation = Simulation(
        _base(),
        TrainingRows({"forget": rows, "retain": rows}),
        Engine(autocast, optimizer=optimizer),
        train=train,
        dtype=dtype,
        **more,
    )
    return simulation.needs(make(Method, "grad_diff", {}), BATCH)


def test_8b_in_float32_needs_five_times_its_weights_and_its_activations() -> None:
    needs = _needs("full", torch.float32, torch.bfloat16)
    size = 4 * PARAMETERS
    assert (needs.weights, needs.base_copy, needs.gradients, needs.moments) == (size, size, size, 2 * size)
    assert 180 * GB < needs.total < 240 * GB


def test_8b_with_adapters_fits_into_24_gigabytes() -> None:
    needs = _needs("lora:rank=16", torch.bfloat16, None, checkpointing=True)
    assert needs.base_copy == 0
    assert needs.weights - 2 * PARAMETERS == needs.gradients == needs.moments // 2
    assert needs.total < 24 * GB


def test_all_of_8b_fits_into_80_gigabytes_with_8_bit_moments_and_bfloat16() -> None:
    """Two bytes a parameter each for weights, base copy, gradients and moments."""
    needs = _needs("full", torch.bfloat16, None, "adamw8bit", checkpointing=True)
    parts = [needs.weights, needs.base_copy, needs.gradients, needs.moments]
    assert parts == [2 * PARAMETERS] * 3 + [moment_bytes("adamw8bit", PARAMETERS, 0)]
    assert needs.total < 80 * GB
