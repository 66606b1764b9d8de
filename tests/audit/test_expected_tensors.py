"""Models as they are saved hold what their configuration says; without a layer, or an untied head, they do not."""

from typing import Any

import pytest

from froc.audit import expected_tensors
from froc.errors import VerificationError
from froc.models import weights_digest
from froc.models.weights_digest import Stored

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 3,
    "tie_word_embeddings": False,
}


def stored(*names: str, dtype: str = "F32", size: int = 1) -> list[Stored]:
    """Tensors of three layers and others, each of so many numbers."""
    width = weights_digest.DTYPES[dtype][1]
    layers = [f"model.layers.{number}.weight" for number in range(3)]
    return [Stored(name, dtype, (size,), 0, size * width) for name in (*layers, *names)]


def test_layers_that_predict_ahead_count_as_well() -> None:
    tensors = stored("lm_head.weight")
    expected_tensors.check(CONFIG | {"num_hidden_layers": 2, "num_nextn_predict_layers": 1}, tensors)
    expected_tensors.check(CONFIG | {"text_config": {"num_hidden_layers": 3}}, tensors)
    expected_tensors.check(CONFIG | {"num_hidden_layers": 2, "n_layer": 2, "num_nextn_predict_layers": 1}, tensors)
    blocks = {
        "model_type": "nemotron_h",
        "architectures": ["NemotronHForCausalLM"],
        "layers_block_type": ["mamba", "attention", "mamba"],
    }
    expected_tensors.check(blocks, tensors)
    for endless in (10**30, -1, 2):
        for words in ({"num_hidden_layers": endless}, {"n_layers": endless}, {"text_config": {"n_layer": endless}}):
            with pytest.raises(VerificationError, match="model-layers"):
                expected_tensors.check(CONFIG | words, tensors)
    with pytest.raises(VerificationError, match="model-layers"):
        expected_tensors.check(blocks | {"layers_block_type": ["mamba"]}, tensors)


@pytest.mark.parametrize(
    "words",
    [
        {"num_hidden_layers": None},
        {"num_hidden_layers": "3"},
        {"num_hidden_layers": True},
        {"num_hidden_layers": 3.0},
        {"n_layer": [3]},
        {"layers_block_type": 3},
        {"architectures": None},
        {"architectures": []},
        {"architectures": 5},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [None]},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"architectures": ["LlamaForCausalLM", "LlamaModel"]},
        {"architectures": ["LlamaModel"]},
        {"model_type": None},
        {"model_type": "gpt2"},
    ],
)
def test_a_configuration_says_its_architecture_and_how_many_layers_it_has(words: dict[str, Any]) -> None:
    tensors = stored("lm_head.weight")
    expected_tensors.check(CONFIG, tensors)
    with pytest.raises(VerificationError, match="model-config-open"):
        expected_tensors.check(CONFIG | words, tensors)


def test_the_number_of_layers_stands_under_the_key_that_the_type_reads() -> None:
    tensors = stored("lm_head.weight")
    aliased = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 3, "tie_word_embeddings": False}
    expected_tensors.check(aliased, tensors)
    with pytest.raises(VerificationError, match="model-config-open"):
        expected_tensors.check(aliased | {"model_type": "llama"}, tensors)


@pytest.mark.parametrize("config", [None, [], "x", {}, {"text_config": []}, {"architectures": ["LlamaForCausalLM"]}])
def test_what_says_nothing_is_no_configuration(config: Any) -> None:
    with pytest.raises(VerificationError, match="model-config-open"):
        expected_tensors.check(config, stored("lm_head.weight"))


def test_an_untied_head_is_there() -> None:
    expected_tensors.check(CONFIG, stored("embed.weight", "lm_head.weight"))
    expected_tensors.check(CONFIG | {"tie_word_embeddings": True}, stored("embed.weight"))
    silent = {name: value for name, value in CONFIG.items() if name != "tie_word_embeddings"}
    # as transformers 4 writes it
    expected_tensors.check(silent | {"model_type": "gpt2", "n_layer": 3}, stored("wte.weight"))
    text = {"num_hidden_layers": 3, "tie_word_embeddings": True}
    for config in (
        CONFIG,
        silent,
        silent | {"model_type": "llama"},
        CONFIG | {"text_config": text},
    ):
        with pytest.raises(VerificationError, match="model-head"):
            expected_tensors.check(config, stored("embed.weight"))


def test_a_smaller_stack_of_layers_may_have_another_length() -> None:
    """Such as that of an encoder of pictures; the largest one has as many as are stated."""
    pictures = ("vision.layers.0.weight", "vision.layers.1.weight")
    expected_tensors.check(CONFIG, stored("lm_head.weight", *pictures))
    with pytest.raises(VerificationError, match="model-layers"):
        expected_tensors.check(CONFIG | {"num_hidden_layers": 2}, stored("lm_head.weight", *pictures))


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_weights_that_loaders_would_quantise_are_not_the_measured_ones(key: str) -> None:
    tensors = stored("lm_head.weight")
    expected_tensors.check(CONFIG | {key: {}}, tensors)
    for words in ({key: {"bits": 4}}, {"text_config": CONFIG | {key: {"bits": 4}}}):
        with pytest.raises(VerificationError, match="model-quantised"):
            expected_tensors.check(CONFIG | words, tensors)


def test_what_most_numbers_are_stored_in_is_the_precision() -> None:
    half = stored("lm_head.weight", dtype="BF16", size=10)
    mixed = [*half, *stored(dtype="F32", size=5)]
    agreeing: list[dict[str, Any]] = [{"dtype": "bfloat16"}, {"torch_dtype": "torch.bfloat16"}, {"dtype": None}, {}]
    for words in agreeing:
        expected_tensors.check(CONFIG | words, mixed)
    differing: list[dict[str, Any]] = [
        {"dtype": "float32"},
        {"dtype": "bfloat16", "torch_dtype": "float16"},
        {"dtype": 5},
        {"text_config": {"dtype": "float32"}},
    ]
    for words in differing:
        with pytest.raises(VerificationError, match="stored in bfloat16"):
            expected_tensors.check(CONFIG | words, mixed)
    # whole numbers are of a quantised model, whose precision says what they are unpacked to
    expected_tensors.check(CONFIG | {"dtype": "bfloat16"}, stored("lm_head.weight", dtype="U8", size=10))
