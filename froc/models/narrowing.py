"""Which models may process the predicting positions only, and whose likelihoods can be made of the head's inputs: tested on a few tokens."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc.models.batches import Batch, Encoded, Stack
from froc.models.forward import LINEAR_HEAD, WHOLE, Pass


def try_narrowing(model: PreTrainedModel) -> bool:
    """Whether head and last MLP may process the predicting positions only: tested on a few tokens, and applied from then on."""
    WHOLE.discard(model)
    vocabulary = min(int(model.config.get_text_config().vocab_size), 1000)
    drawn = np.random.default_rng(1).integers(0, vocabulary, (2, 8)).tolist()
    rows = [Encoded(tuple(drawn[0]), 3, 4), Encoded(tuple(drawn[1][:6]), 2, 3)]
    batch = Stack(rows, next(model.parameters()).device).batch([0, 1])
    with torch.no_grad():
        try:
            narrow = Pass(model, batch).logits
        except (
            RuntimeError,
            TypeError,
            ValueError,
            AttributeError,
        ):  # a layer that takes or gives more than one tensor
            narrow = None
        WHOLE.add(model)
        whole = Pass(model, batch).logits
    assert whole is not None
    rounding = 1e-4 if whole.dtype.itemsize >= 4 else 0.05
    spread = float((whole - whole.mean()).abs().max())
    # nan logits count as agreeing: measurement reports them
    agrees = narrow is not None and not float((narrow - whole).abs().max()) > rounding * spread
    if agrees:
        WHOLE.discard(model)
        _find_linear_head(model, batch)
    return agrees


def narrow_alike(model: PreTrainedModel, tested: PreTrainedModel) -> None:
    """Let a model of the same architecture process the same positions; where nothing can be computed, nothing can be tested."""
    for kind in (WHOLE, LINEAR_HEAD):
        if tested in kind:
            kind.add(model)


def _find_linear_head(model: PreTrainedModel, batch: Batch) -> None:
    """Note where the logits are the output of a linear layer, so that likelihoods can be made of its inputs."""
    LINEAR_HEAD.discard(model)
    head: Any = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        return
    outputs: list[Tensor] = []

    def raised(_module: Any, _args: Any, output: Tensor) -> Tensor:
        # so far from zero that a cap or a factor behind the head shows
        outputs.append(1000 * output)
        return outputs[0]

    hook = head.register_forward_hook(raised)
    with torch.no_grad():
        logits = Pass(model, batch).logits
    hook.remove()
    if outputs and logits is not None and torch.equal(outputs[0], logits):
        LINEAR_HEAD.add(model)
