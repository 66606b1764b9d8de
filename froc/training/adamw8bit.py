"""AdamW whose two moments take 8 bits each, and which rounds new values of half-precision parameters at random.

Block-wise as in Dettmers et al. (2110.02861): each 256 values share a scale, their largest. Levels are dense near zero: those of the
first moment are squares, those of the second fourth powers. Rounding is stochastic, up or down by chance so that the mean is exact:
to the nearest level, a second moment would never decay, and a small step in bfloat16 would come to nothing. In plain torch, so that
it works on every device, and seeded, so that a trial is repeatable.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from froc import hashing
from froc.models.process_group import description, from_description, is_divided, own, rank

BLOCK = 256
"""Values that share a scale."""
CHUNK = 2**23
"""Values worked on at a time, which bounds the memory beside the state."""
SIGNED, UNSIGNED = 127, 255
"""Largest codes of the first and the second moment."""
MASK = 2**32 - 1
BETAS, EPSILON = (0.9, 0.999), 1e-8


class AdamW8bit(torch.optim.Optimizer):
    """Decoupled weight decay, as `torch.optim.AdamW`; a parameter's state is two codes and two scales.

    seed: of rounding. Draws depend on it, the step and the parameter's place alone, so nothing is kept of them.
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float, seed: int) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            largest = max(group["params"], key=Tensor.numel)
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if parameter.is_meta and parameter is not largest:
                    # without values the memory is all that counts, and beside the state a larger one needs more
                    _ = self.state[parameter] or self._begun(parameter)
                    continue
                self._update(parameter, parameter.grad, place, group["lr"], group["weight_decay"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would turn the codes into floats."""
        super().load_state_dict({**state_dict, "state": {}})
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        for place, state in state_dict["state"].items():
            self.state[every[place]] = dict(state)

    def second_moment(self, parameter: Parameter) -> Tensor:
        """The second moment in float32, of the parameter's shape."""
        state = self.state[parameter]
        local = own(parameter)
        values = _decoded(state["second"], state["second_scale"], UNSIGNED, 4)[: local.numel()].view_as(local)
        return from_description(values, description(parameter))

    def _update(self, parameter: Parameter, gradient: Tensor, place: int, lr: float, decay: float) -> None:
        state = self.state[parameter] or self._begun(parameter)
        # of a divided parameter this process's part, whose draws are its own; the others are the same in all processes
        others = (rank(),) if is_divided(parameter) and rank() else ()
        local, gradient = own(parameter), own(gradient)
        state["step"] += 1
        step = int(state["step"])
        draw = Draw(self._seed, step, place, *others)
        # contiguous, so that slices of it are the parameter's own memory
        values, gradients = local.view(-1), gradient.reshape(-1)
        correction = [1 - beta**step for beta in BETAS]
        for start in range(0, local.numel(), CHUNK):
            part = slice(start, min(start + CHUNK, local.numel()))
            blocks = slice(start // BLOCK, -(-part.stop // BLOCK))
            codes = slice(blocks.start * BLOCK, blocks.stop * BLOCK)
            grad = torch.nn.functional.pad(gradients[part].float(), (0, codes.stop - part.stop))
            first = _decoded(state["first"][codes], state["first_scale"][blocks], SIGNED, 2).lerp_(grad, 1 - BETAS[0])
            second = _decoded(state["second"][codes], state["second_scale"][blocks], UNSIGNED, 4)
            second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            _encode(first, state["first"][codes], state["first_scale"][blocks], SIGNED, 2, draw)
            _encode(second, state["second"][codes], state["second_scale"][blocks], UNSIGNED, 4, draw)
            del grad
            denominator = second.sqrt_().div_(math.sqrt(correction[1])).add_(EPSILON)
            new = values[part].float().mul_(1 - lr * decay)
            size = part.stop - part.start
            new.addcdiv_(first[:size], denominator[:size], value=-lr / correction[0])
            rounded_into(values[part], new, draw)
            if local.is_meta:
                break

    def _begun(self, parameter: Parameter) -> dict[str, Any]:
        blocks = -(-own(parameter).numel() // BLOCK)
        made: dict[str, Any] = {"step": torch.zeros(())}
        for name, dtype in (("first", torch.int8), ("second", torch.uint8)):
            made[name] = torch.zeros(blocks * BLOCK, dtype=dtype, device=parameter.device)
            made[f"{name}_scale"] = torch.zeros(blocks, device=parameter.device)
        self.state[parameter] = made
        return made


class Draw:
    """Random numbers from a seed and their place alone: the same on every device, whose generators need no state for them."""

    def __init__(self, *seed: int) -> None:
        self._seed, self._calls = seed, 0

    def bits(self, count: int, device: torch.device) -> Tensor:
        """(count,) int64, uniform in [0, 2**32); others in each call."""
        self._calls += 1
        start = hashing.derive_seed("rounding", *self._seed, self._calls) % 2**32
        # the finaliser of MurmurHash3, whose every bit hangs on all bits of what it is given
        value = torch.arange(count, device=device).mul_(0x9E3779B1).add_(start).bitwise_and_(MASK)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            value.bitwise_xor_(value >> shift).mul_(factor).bitwise_and_(MASK)
        return value.bitwise_xor_(value >> 16)

    def uniform(self, like: Tensor) -> Tensor:
        """(n,) float32 in [0, 1), as many as there are values."""
        return self.bits(like.numel(), like.device).bitwise_right_shift_(8).float().mul_(2.0**-24)


def rounded_into(place: Tensor, values: Tensor, draw: Draw) -> None:
    """Write float32 values into a tensor; up or down at random to bfloat16, to the nearest in any other type. Overwrites the values."""
    if place.dtype == torch.bfloat16:
        bits = values.view(torch.int32)
        # the lower half of the bits is cut off; a random number below that half carries with the right probability
        noise = draw.bits(bits.numel(), bits.device).bitwise_right_shift_(16).to(torch.int32)
        bits.add_(noise.view(bits.shape)).bitwise_and_(-(2**16))
    place.copy_(values)


def _decoded(codes: Tensor, scale: Tensor, largest: int, power: int) -> Tensor:
    """(blocks * BLOCK,) float32 values."""
    root = codes.float().div_(largest)
    value = root.square() if power == 2 else root.square().square_()
    value = value.copysign_(root) if largest == SIGNED else value
    return value.view(-1, BLOCK).mul_(scale[:, None]).view(-1)


def _encode(values: Tensor, codes: Tensor, scale: Tensor, largest: int, power: int, draw: Draw) -> None:
    """Write values as codes and scales. Between two levels the upper is drawn so that the mean is the value.

    A second moment that is not zero keeps a level above zero: it is divided by.
    """
    blocks = values.view(-1, BLOCK)
    torch.amax(blocks.abs(), 1, out=scale)
    share = blocks.abs().div_(scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).view(-1)
    lower = share.pow(1 / power).mul_(largest).floor_().clamp_(max=largest - 1)
    below, above = (((lower + k) / largest).pow_(power) for k in (0, 1))
    chance = share.sub_(below).div_(above.sub_(below))
    lower.add_(draw.uniform(lower).lt_(chance))
    if largest == UNSIGNED:
        lower.clamp_min_(1.0).mul_(values > 0)
    codes.copy_(lower.copysign_(values) if largest == SIGNED else lower)
