"""The optimisers of training, by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from froc.training.adamw8bit import AdamW8bit

WEIGHT_DECAY = 0.01


def adamw(parameters: Iterable[Parameter], lr: float, name: str = "adamw", seed: int = 0) -> torch.optim.Optimizer:
    """AdamW in one kernel over all parameters, or with 8-bit moments (`adamw8bit`). seed: of what is rounded at random."""
    trained = list(parameters)
    if name == "adamw8bit":
        return AdamW8bit(trained, lr, WEIGHT_DECAY, seed)
    if trained[0].is_meta:
        return _Shapes(trained, lr=lr, foreach=False, fused=False)
    return torch.optim.AdamW(trained, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)


def second_moment(optimiser: torch.optim.Optimizer, parameter: Parameter) -> Tensor:
    """AdamW's second moment of a parameter."""
    if isinstance(optimiser, AdamW8bit):
        return optimiser.second_moment(parameter)
    moment: Tensor = optimiser.state[parameter]["exp_avg_sq"]
    return moment


class _Shapes(torch.optim.AdamW):
    """AdamW's state without its arithmetic, which in one kernel needs no memory."""

    def step(self, closure: Any = None) -> Any:
        """Make what a first step makes."""
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None and not self.state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros(()), **moments}
