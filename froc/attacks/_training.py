"""The short training that relearning and drift share."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc import hashing
from froc.data.task import Row
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material, parameters
from froc.models.batches import Limits, Stack, encode
from froc.models.forward import Forward

CLIP = 1.0
PER_WIDTH = 0.03


@dataclass(frozen=True)
class Training(Attack):
    """An attack that trains the model for a few steps with AdamW, no weight decay, gradients clipped to norm 1.

    steps: number of steps.
    batch: rows per step.
    lr: constant learning rate; 0 means 0.03 divided by the model's width, since wide models need small ones: 3e-4 at
        width 96, which brought back most among {1e-4, 3e-4, 1e-3}, and 7e-6 at 4096, where papers use 1e-5.
    """

    steps: int = hyperparameter(30, Range(1, 250))
    lr: float = hyperparameter(0.0, Range(0.0, 1e-2))
    batch: int = hyperparameter(16, Range(1, 64))

    def train(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: tuple[Row, ...], material: Material
    ) -> None:
        """Raise the likelihood of the rows' answers in place: all parameters train, and each row is used equally often."""
        stack = Stack(encode(tokenizer, rows, material.template, Limits.of(model)), model.device)
        draw = np.random.default_rng(hashing.derive_seed("attack", material.seed))
        own = [p.requires_grad_() for p in parameters(model).values() if p.dtype.is_floating_point]
        # small steps are lost in half-precision parameters, so float32 copies are trained
        moved = [p if p.dtype == torch.float32 else p.detach().float() for p in own]
        lr = self.lr or PER_WIDTH / model.config.get_text_config().hidden_size
        optimiser = torch.optim.AdamW(moved, lr=lr, weight_decay=0.0)
        left = np.zeros(0, dtype=np.int64)
        for _ in range(self.steps):
            while len(left) < self.batch:
                left = np.concatenate([left, draw.permutation(len(rows))])
            index, left = left[: self.batch], left[self.batch :]
            with torch.enable_grad():
                loss = Forward.of(model, stack.batch(index)).mean_nll.mean()
                grads = torch.autograd.grad(loss, own, allow_unused=True)
            for p, grad in zip(moved, grads, strict=True):
                p.grad = None if grad is None else grad.to(p.dtype)
            torch.nn.utils.clip_grad_norm_(moved, CLIP)
            optimiser.step()
            with torch.no_grad():
                for p, copy in zip(own, moved, strict=True):
                    if p is not copy:
                        p.copy_(copy)
