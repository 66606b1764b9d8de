"""The optimisers of training, by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter

WEIGHT_DECAY = 0.01


def adamw(parameters: Iterable[Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW in one kernel over all parameters."""
    trained = list(parameters)
    if trained[0].is_meta:
        return _Shapes(trained, lr=lr, foreach=False, fused=False)
    return torch.optim.AdamW(trained, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)


class _Shapes(torch.optim.AdamW):
    """AdamW's state without its arithmetic, which in one kernel needs no memory."""

    def step(self, closure: Any = None) -> Any:
        """Make what a first step makes."""
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None and not self.state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros(()), **moments}
