"""Block outputs of one model in another: against one row at a time, and only where the answer is predicted."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from froc.measuring.layer_patching import of_current
from froc.models.base import Base
from froc.models.batches import Encoded
from froc.models.hooks import blocks
from froc.search.trial.runner import TrialRunner


def _answer_logprob(model: Any, row: Encoded, replaced: dict[int, torch.Tensor], columns: slice) -> float:
    """Mean log-probability of the answer's tokens with block outputs (T, D) replaced at `columns`."""

    def hook(state: torch.Tensor, _module: Any, _args: Any, output: Any) -> Any:
        own = output[0] if isinstance(output, tuple) else output
        own[0, columns] = state[columns]
        return output

    handles = [blocks(model)[k].register_forward_hook(partial(hook, state)) for k, state in replaced.items()]
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
    for handle in handles:
        handle.remove()
    answer = torch.tensor(row.answer_ids)
    return float(logprobs[row.prompt - 1 : row.prompt - 1 + row.answer].gather(1, answer[:, None]).mean())


@pytest.mark.parametrize("whole_row", [False, True])
def test_only_states_that_predict_the_answer_are_replaced(bench: TrialRunner, whole_row: bool) -> None:
    base: Base = bench.base
    base.restore()
    rows = [*bench.reference.pools.rows["forget"][:3], *bench.reference.pools.rows["retain"][:2]]
    with torch.no_grad():
        for parameter in base.trainable.parameters().values():
            parameter.mul_(0.8)
        states = [
            [s[0] for s in base.model(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[1:]]
            for row in rows
        ]
    # the last of `hidden_states` is after the final norm, so the last block is left out of the comparison
    depth = len(blocks(base.model)) - 1
    result = of_current(base, rows)[:, :depth]
    base.restore()
    expected = np.zeros_like(result)
    for k, row in enumerate(rows):
        columns = slice(0, len(row.ids)) if whole_row else slice(row.prompt - 1, row.prompt - 1 + row.answer)
        plain = _answer_logprob(base.model, row, {}, columns)
        for layer in range(depth):
            expected[k, layer] = plain - _answer_logprob(base.model, row, {layer: states[k][layer]}, columns)
    assert np.allclose(result, expected, atol=1e-3) == (not whole_row)
