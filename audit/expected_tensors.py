"""Tensors that a model's configuration implies: numbered layers, an output embedding of its own, their precision. Torch-free.

A loader initialises missing tensors, ignores unknown ones and converts those of another precision, so that the loaded model would
differ from the signed one. Which tensors a layer has depends on the architecture's code, which is not run here.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from froc.errors import VerificationError
from froc.models.weights_digest import DTYPES, Stored

COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
"""Configuration keys for the number of layers."""
LAYERS = COUNTS[0]
"""The key that most types of models read."""
LAYERS_OF_TYPE = {
    "n_layer": ("bloom", "codegen", "ctrl", "gpt-sw3", "gpt2", "gpt_bigcode", "gptj", "openai-gpt", "xlnet"),
    "n_layers": ("dbrx", "mpt", "xlm"),
    "num_layers": ("gpt_neo", "xglm"),
    "decoder_layers": ("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart", "trocr", "whisper"),
}  # fmt: skip
"""Key -> the types of models that read it in place of the usual one."""
BLOCKS = "layers_block_type"
"""Configuration key for a list of layers, which some architectures have instead of a number."""
BLOCK_TYPES = ("nemotron_h",)
"""The types of models that read it."""
FURTHER = "num_nextn_predict_layers"
"""Configuration key for the number of additional layers that predict tokens ahead."""
MOST_LAYERS = 10**5
TIED = "tie_word_embeddings"
TIED_UNLESS_SAID = (
    "bloom", "cohere", "cohere2", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text",
    "gpt2", "gpt_bigcode", "gpt_neo", "mamba", "mpt", "opt", "smollm3", "starcoder2", "xglm",
)  # fmt: skip
"""Types of models whose output embedding is tied where their configuration omits the key, as transformers 4 does."""
QUANTISED = ("quantization_config", "compression_config")
"""Configuration keys by which loaders convert the weights."""
PRECISIONS = ("dtype", "torch_dtype")
FLOATS = ("float16", "bfloat16", "float32", "float64")
_OTHER_LAYERS = "the files hold other layers than their config.json has; save the model again"
_LAYER = re.compile(r"(.*?)\.([0-9]{1,6})\.")
_HEAD = re.compile(r"head|embed_out|output", re.IGNORECASE)
_CAUSAL = re.compile(r"ForCausalLM|ForConditionalGeneration|LMHead|GenerationDecoder")
"""In the name of an architecture that predicts tokens; others load the same tensors with a new head."""


def check(config: Any, tensors: Sequence[Stored]) -> None:
    """VerificationError where a configuration implies other tensors than the files have, or leaves open which ones."""
    text = config.get("text_config") if isinstance(config, dict) else None
    parts = [part for part in (config, text) if isinstance(part, dict)]
    counts = [_count(part, name) for part in parts for name in (*COUNTS, BLOCKS) if name in part]
    if None in counts or not any(map(_says_layers, parts)) or not _names_architectures(config):
        raise VerificationError(
            "model-config-open",
            "config.json names no model_type, no architecture that predicts tokens, or not the number of layers by the key that its type reads, "
            "so that loaders make them up; save the model again",
        )
    if any(part.get(key) for part in parts for key in QUANTISED):
        raise VerificationError(
            "model-quantised",
            "config.json has loaders quantise the weights, or take them for quantised: that model is not the measured one; take it out",
        )
    _refuse_layers(parts, counts, tensors)
    if not any(_HEAD.search(tensor.name) for tensor in tensors) and not _tied(parts):
        raise VerificationError(
            "model-head",
            "the files hold no output embedding, and config.json ties it to no other; save the model again",
        )
    _refuse_precision(parts, tensors)


def _names_architectures(config: Any) -> bool:
    named = config.get("architectures")
    return (
        isinstance(named, list)
        and bool(named)
        and all(isinstance(name, str) and _CAUSAL.search(name) for name in named)
    )


def _says_layers(part: dict[str, Any]) -> bool:
    """Whether a part of a configuration has the key that loaders of its type read; they make up the number where it is missing."""
    kind = part.get("model_type")
    own = next((key for key, kinds in LAYERS_OF_TYPE.items() if kind in kinds), LAYERS)
    return isinstance(kind, str) and (own in part or (kind in BLOCK_TYPES and BLOCKS in part))


def _count(part: dict[str, Any], name: str) -> int | None:
    """The number of layers by one key; None where the value is no such number."""
    value = part[name]
    if name == BLOCKS:
        return len(value) if isinstance(value, list) else None
    return value if type(value) is int else None


def _refuse_layers(parts: Sequence[dict[str, Any]], counts: Sequence[int | None], tensors: Sequence[Stored]) -> None:
    """Compares every key in every part, since the loader's class decides which one it reads.

    The layers that hold most of the numbers must be among those that a key counts: a few numbers under other names are no layers.
    """
    further = max((part[FURTHER] for part in parts if type(part.get(FURTHER)) is int), default=0)
    stacks: dict[str, set[int]] = {}
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        match = _LAYER.match(tensor.name)
        if match is not None:
            stacks.setdefault(match[1], set()).add(int(match[2]))
            sizes[match[1]] += tensor.end - tensor.begin
    largest = stacks[sizes.most_common(1)[0][0]] if sizes else set()
    main = False
    for count in {number or 0 for number in counts}:
        known = [set(range(length)) for length in (count, count + further) if length <= MOST_LAYERS]
        main |= largest in known
        if not any(stack in known for stack in stacks.values()):
            raise VerificationError("model-layers", _OTHER_LAYERS)
    if not main:
        raise VerificationError("model-layers", _OTHER_LAYERS)


def _tied(parts: Sequence[dict[str, Any]]) -> bool:
    stated = [part[TIED] for part in parts if TIED in part]
    if stated:
        return all(value is True for value in stated)
    return any(part.get("model_type") in TIED_UNLESS_SAID for part in parts)


def _refuse_precision(parts: Sequence[dict[str, Any]], tensors: Sequence[Stored]) -> None:
    """Compares the precision of most numbers: many models keep a few tensors, such as norms or routers, in a wider one."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[DTYPES[tensor.dtype][0]] += (tensor.end - tensor.begin) // DTYPES[tensor.dtype][1]
    stored = max(sizes, key=lambda dtype: (sizes[dtype], dtype))
    for stated in (part[name] for part in parts for name in PRECISIONS if part.get(name) is not None):
        if stored in FLOATS and str(stated).removeprefix("torch.") != stored:
            raise VerificationError(
                "model-dtype",
                f"the weights are stored in {stored} and config.json says another precision, to which loaders convert them: that model is "
                f"not the measured one; save the model again, or have config.json say {stored}",
            )
