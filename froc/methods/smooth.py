"""Unlearning at a smooth point: sharpness-aware minimisation (SAM) and randomised smoothing of the forget loss."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn import Parameter

from froc import hashing
from froc.errors import InputError
from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods._combining import combined_already, norm, plus, restored
from froc.models.process_group import divided
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, GradientProbe
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Weights


@dataclass(frozen=True)
class Nearby(Combiner):
    """g_f(theta + d) + g_r(theta): the forget gradient is taken beside the parameters, the retain gradient at them.

    sharpness: d = radius g_f(theta) / |g_f(theta)|, uphill of the forget loss; else each coordinate of d is drawn anew
        in each step from a normal distribution with standard deviation `radius`.
    seed: of the draws.
    """

    needs_probes: ClassVar[bool] = True
    sharpness: bool = True
    radius: float = 0.01
    seed: int = 0

    @property
    def n_extra_gradients(self) -> float:
        """The forget side once more, in units of both sides."""
        return 0.5

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """The sum; `parameters` are restored bit by bit. Where g_f is zero, d is zero, too."""
        with restored(parameters):
            self._move(gradients["forget"], parameters, state)
            beside = probe("forget")["forget"]
        return plus((1.0, beside), (1.0, gradients.get("retain", {})))

    def _move(self, forget: Weights, parameters: Mapping[str, Parameter], state: State) -> None:
        """theta <- theta + d."""
        if self.sharpness:
            factor = self.radius / max(norm(forget), 1e-30)
            for name, grad in forget.items():
                parameters[name].add_(grad, alpha=factor)
            return
        state["draws"] = state.get("draws", 0) + 1
        seed = hashing.derive_seed("smoothing", self.seed, state["draws"])
        for number, parameter in enumerate(parameters.values()):
            draw = torch.Generator(parameter.device).manual_seed((seed + number) % 2**63)
            noise = torch.randn(parameter.shape, generator=draw, device=parameter.device, dtype=parameter.dtype)
            parameter.add_(divided(noise, parameter), alpha=self.radius)


@dataclass(frozen=True)
class Smooth(Wrapper):
    """Forget all around the parameters, so that small changes such as a few steps of relearning bring nothing back.

    min over theta of max over |d| <= rho of L_f(theta + d), + L_r(theta) (`sharpness`: SAM, one ascent step, d = rho
    g_f / |g_f| over all trained parameters), or of E L_f(theta + d), d ~ N(0, sigma^2) per coordinate (`random`: one
    draw per step). L_f and L_r are the inner method's: the authors' NPO+SAM is smooth(npo).

    rho: length of d, 0.01 in the authors' scripts, for a model of 7 billion parameters; 0 is the inner method.
    sigma: 1e-4 in the authors' scripts.

    `random` is the paper's formula; no code of it could be read. The paper's penalties on the gradient's norm and on curvature, and its averaging of weights, are left out.
    """

    paper: ClassVar[str] = "Fan et al. 2502.05374"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "wrapper"

    smoothing: str = hyperparameter("sharpness", Choice(("sharpness", "random")))
    rho: float = hyperparameter(0.01, Range(1e-3, 0.3, log=True), smoothing=("sharpness",))
    sigma: float = hyperparameter(1e-4, Range(1e-5, 1e-2, log=True), smoothing=("random",))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase with this combiner. InputError in half precision."""
        if context.half:
            raise InputError("smooth moves parameters less than half precision can tell; give --dtype float32")
        sharpness = self.smoothing == "sharpness"
        return replace(phase, combiner=Nearby(sharpness, self.rho if sharpness else self.sigma, context.seed))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """An inner method without a combiner of its own."""
        return combined_already(inner)
