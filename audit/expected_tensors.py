"""Tensors that a model's configuration implies: numbered layers, and an output embedding of its own. Torch-free.

A loader initialises missing tensors and ignores unknown ones, so that the loaded model would differ from the signed
one. Which tensors a layer has depends on the architecture's code, which is not run here.
"""

import re
from collections.abc import Collection
from typing import Any

from froc.errors import VerificationError

COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""Configuration keys for the number of layers."""
FURTHER = "num_nextn_predict_layers"
"""Configuration key for the number of additional layers that predict tokens ahead."""
_LAYER = re.compile(r"(.*?)\.([0-9]{1,6})\.")
_HEAD = re.compile(r"head|embed_out|output", re.IGNORECASE)


def check(config: Any, tensors: Collection[str]) -> None:
    """VerificationError where a configuration implies other layers than the files have, or an untied output embedding that they lack."""
    if not isinstance(config, dict):
        return
    text = config.get("text_config")
    part = text if isinstance(text, dict) else config
    count, further = next((part[name] for name in COUNTS if name in part), None), part.get(FURTHER, 0)
    stacks: dict[str, set[int]] = {}
    for match in filter(None, map(_LAYER.match, tensors)):
        stacks.setdefault(match[1], set()).add(int(match[2]))
    if type(count) is int:
        known = [
            set(range(length))
            for length in {count, count + (further if type(further) is int else 0)}
            if length <= 10**5
        ]
        if not any(stack in known for stack in stacks.values()):
            raise VerificationError(
                "model-layers", "the files hold other layers than their config.json has; save the model again"
            )
    causal = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())
    if causal and part.get("tie_word_embeddings") is False and not any(map(_HEAD.search, tensors)):
        raise VerificationError(
            "model-head",
            "the files hold no output embedding, and config.json ties it to no other; save the model again",
        )
