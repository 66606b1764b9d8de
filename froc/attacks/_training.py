"""The short training that relearning and drift share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc import hashing
from froc.data.task import Row
from froc.hyperparameters import Range, hyperparameter
from froc.measuring.attack import Attack, Material, parameters
from froc.models.batches import Counts, Limits, Stack, encode
from froc.models.device_room import host_room, room
from froc.models.forward import Forward
from froc.models.memory import with_fewer_rows
from froc.models.process_group import is_divided

CLIP = 1.0
PER_WIDTH = 0.03


@dataclass(frozen=True)
class Training(Attack):
    """An attack that trains the model for a few steps with AdamW, no weight decay, gradients clipped to norm 1.

    steps: number of steps.
    batch: rows per step.
    lr: constant learning rate; 0 means 0.03 divided by the model's width, since wide models need small ones: 3e-4 at
        width 96, which brought back most among {1e-4, 3e-4, 1e-3}, and 7e-6 at 4096, where papers use 1e-5.
    rate: multiple of that learning rate, for a sweep that fits models of any width.
    """

    steps: int = hyperparameter(30, Range(1, 250))
    lr: float = hyperparameter(0.0, Range(0.0, 1e-2))
    batch: int = hyperparameter(16, Range(1, 64))
    rate: float = hyperparameter(1.0, Range(0.1, 10.0, log=True))

    def train(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: tuple[Row, ...], material: Material
    ) -> None:
        """Raise the likelihood of the rows' answers in place: all parameters train, and each row is used equally often.

        On a device without room for what that takes, it is kept on the host.
        """
        stack = Stack(encode(tokenizer, rows, material.template, Limits.of(model)), model.device)
        draw = np.random.default_rng(hashing.derive_seed("attack", material.seed))
        own = [p.requires_grad_() for p in parameters(model).values() if p.dtype.is_floating_point]
        lr = self.rate * (self.lr or PER_WIDTH / model.config.get_text_config().hidden_size)
        trained = _kind(own, room(model.device))(own, lr)
        left = np.zeros(0, dtype=np.int64)
        for _ in range(self.steps):
            while len(left) < self.batch:
                left = np.concatenate([left, draw.permutation(len(rows))])
            index, left = left[: self.batch], left[self.batch :]

            def passes(rows: int, index: Counts = index) -> None:
                for start in range(0, self.batch, rows):
                    part = index[start : start + rows]
                    with torch.enable_grad():
                        mean = Forward.of(model, stack.batch(part)).mean_nll.mean()
                        trained.add_gradients(mean * (len(part) / self.batch))

            with_fewer_rows(self.batch, passes, trained.clear)
            trained.step()


def _kind(own: Sequence[Tensor], room: float) -> "type[_Trained]":
    """Where and how these parameters train."""
    if any(is_divided(p) for p in own):
        return _Divided
    if _bytes_of_training(own) <= room:
        return _OnDevice
    needed = 16 * sum(p.numel() for p in own)
    # without values nothing is taken
    if not own[0].is_meta and needed > host_room():
        # the system would end the process instead, and with it the search
        raise MemoryError(f"training all parameters needs {needed / 1e9:.3g} GB of the host's memory")
    return _OnHost


def _bytes_of_training(own: Sequence[Tensor]) -> int:
    """Gradients, float32 copies of what is in half precision, and moments."""
    return sum(p.numel() * (p.element_size() + (12 if p.dtype == torch.float32 else 16)) for p in own)


class _Trained(ABC):
    """Parameters that AdamW trains in float32: small steps are lost in half precision, so of such parameters copies are trained."""

    def __init__(self, own: Sequence[Tensor], lr: float) -> None:
        self._own = own
        self._moved = self._copies()
        # in one kernel there is no memory beside the state
        fused = own[0].device.type == "cuda"
        self._optimiser = torch.optim.AdamW(self._moved, lr=lr, weight_decay=0.0, fused=fused)

    @abstractmethod
    def _copies(self) -> list[Tensor]:
        """What is trained for each parameter: itself, or a copy."""

    @abstractmethod
    def add_gradients(self, loss: Tensor) -> None:
        """Differentiate a loss and add the gradients to those that are there."""

    def clear(self) -> None:
        """Drop all gradients."""
        for value in (*self._own, *self._moved):
            value.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Clip, step, and write copies back."""
        torch.nn.utils.clip_grad_norm_(self._moved, CLIP)
        self._optimiser.step()
        self.clear()
        for p, copy in zip(self._own, self._moved, strict=True):
            if p is not copy:
                p.copy_(copy)


class _OnDevice(_Trained):
    """Everything on the model's device."""

    def _copies(self) -> list[Tensor]:
        return [p if p.dtype == torch.float32 else p.detach().float() for p in self._own]

    def add_gradients(self, loss: Tensor) -> None:
        grads: list[Tensor | None] = list(torch.autograd.grad(loss, list(self._own), allow_unused=True))
        for place, p in enumerate(self._moved):
            grad, grads[place] = grads[place], None
            if grad is not None:
                p.grad = grad.to(p.dtype) if p.grad is None else p.grad + grad


class _Divided(_OnDevice):
    """Each process's part on its device; a backward pass leaves the gradients divided."""

    def add_gradients(self, loss: Tensor) -> None:
        loss.backward()
        for p, copy in zip(self._own, self._moved, strict=True):
            if p is not copy and p.grad is not None:
                grad = p.grad.to(copy.dtype)
                copy.grad = grad if copy.grad is None else copy.grad + grad
                p.grad = None


class _OnHost(_Trained):
    """Copies, gradients and moments on the host: the device holds one gradient at a time, which leaves it in the backward pass."""

    def _copies(self) -> list[Tensor]:
        return [p.detach().to("cpu", torch.float32, copy=True) for p in self._own]

    def add_gradients(self, loss: Tensor) -> None:
        def leaves(copy: Tensor, p: Tensor) -> None:
            if p.grad is not None:
                grad = p.grad.to("cpu", torch.float32)
                copy.grad = grad if copy.grad is None else copy.grad.add_(grad)
                p.grad = None

        with ExitStack() as hooks:
            for p, copy in zip(self._own, self._moved, strict=True):
                hooks.callback(p.register_post_accumulate_grad_hook(partial(leaves, copy)).remove)
            loss.backward()
