"""Models that nobody trained and rows without words, for tests that work formulas out by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from froc.models.base import Base
from froc.models.batches import Encoded, collate
from froc.models.forward import Forward
from froc.models.trainable import Full, TrainableParameters
from froc.training.base_statistics import BaseStatistics, TrainingRows


def gpt2(
    vocabulary: int, *, width: int = 16, inner: int = 24, layers: int = 2, spread: float = 0.25, **more: Any
) -> Any:
    """A model whose matrices lie down, of two heads; float32. spread: standard deviation of its weights."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_inner=inner, n_layer=layers, n_head=2, n_positions=64,
        initializer_range=spread, bos_token_id=None, eos_token_id=0, pad_token_id=None, **more,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def llama(
    vocabulary: int, *, width: int = 16, inner: int = 24, layers: int = 2, heads: int = 2, groups: int = 2,
    spread: float = 0.3, **more: Any,
) -> Any:  # fmt: skip
    """A model with gates, whose `groups` pairs of keys and values are shared by the heads; float32."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=64, initializer_range=spread,
        bos_token_id=None, eos_token_id=0, pad_token_id=None, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def neox(vocabulary: int) -> Any:
    """A model whose queries, keys and values are one matrix; float32."""
    torch.manual_seed(4)
    return GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=24, **_wide(vocabulary))).eval()


def opt(vocabulary: int) -> Any:
    """A model whose feed-forward is no module of its own; float32."""
    torch.manual_seed(4)
    return OPTForCausalLM(OPTConfig(word_embed_proj_dim=16, ffn_dim=24, **_wide(vocabulary))).eval()


def _wide(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 32, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip


BUILDERS: dict[str, Callable[[int], Any]] = {"gpt2": gpt2, "llama": llama, "neox": neox, "opt": opt}
"""Architecture -> what makes a model of so many tokens."""


DRIFT = 0.02
"""Trainings that differ by rounding alone end nearer: 1e-7 to 2e-4 over methods, models and two processors' arithmetic; those
that draw other rows end 0.4 to 1.1 apart."""
NO_TOKENIZER: Any = None
"""No text is tokenised where rows are made of numbers."""


def encoded(
    count: int, vocabulary: int, seed: int | np.random.Generator = 1, least: int = 1, most: int = 4
) -> list[Encoded]:
    """Prompts of 2 to 4 tokens and answers of `least` to `most`, of unequal lengths, with token 0 as the end."""
    draw, made = np.random.default_rng(seed), []
    for i in range(count):
        prompt, answer = 2 + i % 3, least + (2 * i) % (most - least + 1)
        made.append(Encoded((*draw.integers(1, vocabulary, prompt + answer).tolist(), 0), prompt, answer))
    return made


def reference(
    model: Any,
    forget: Sequence[Encoded] = (),
    retain: Sequence[Encoded] = (),
    *,
    seed: int = 0,
    scope: TrainableParameters | None = None,
) -> BaseStatistics:
    """The model with these rows, or five and six of its own vocabulary; all of it may move where no scope is given."""
    draw = np.random.default_rng(2)
    pools = {
        "forget": forget or encoded(5, model.config.vocab_size, draw),
        "retain": retain or encoded(6, model.config.vocab_size, draw),
    }
    return BaseStatistics(Base("small", model, NO_TOKENIZER, scope or Full(model), ""), TrainingRows(pools, seed=seed))


def passed(made: BaseStatistics, role: str, layers: Sequence[int] = ()) -> Forward:
    """A pass over a role's rows as the model stands, with the hidden states of these layers."""
    rows = made.pools.rows[role]
    with torch.no_grad():
        return Forward.of(made.base.model, collate(rows, range(len(rows)), "cpu"), layers)


def nll(made: BaseStatistics, role: str) -> float:
    """Mean over a role's rows, as the model stands, of nats per token of answer and end."""
    return float(passed(made, role).mean_nll.mean())


def states(made: BaseStatistics, role: str, layer: int) -> Tensor:
    """(positions, D) hidden states of all rows where answers are predicted."""
    rows = made.pools.rows[role]
    return passed(made, role, (layer,)).hidden(layer)[collate(rows, range(len(rows)), "cpu").answer_states]


def changed(base: Base) -> set[str]:
    """Names of parameters that are not the base's."""
    return {
        name
        for name, p in base.trainable.parameters().items()
        if not torch.equal(base.trainable.base_values()[name], p)
    }


def drift(first: Mapping[str, Tensor], second: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """How far two trainings from `start` end apart, as a share of how far the first went; Euclidean over all weights.

    Not the largest difference: where a gradient is zero but for rounding, its sign is too, and with it AdamW's first steps.
    """
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first)
    return float((apart / sum(float((first[name] - start[name]).square().sum()) for name in first)) ** 0.5)


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether weights are alike to the bit."""
    return all(torch.equal(first[name], second[name]) for name in first)
