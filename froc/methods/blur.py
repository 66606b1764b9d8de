"""Bi-level unlearning (BLUR): forgetting first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._combining import combined_already, plus, without_retain_side
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, dot
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Weights


@dataclass(frozen=True)
class ForgetFirst(Combiner):
    """u = gamma g_f + g_r - (<g_r, g_f> / |g_f|^2) g_f, over all parameters, so that <g_f, u> = gamma |g_f|^2."""

    needs_gradients: ClassVar[bool] = True
    gamma: float = 1.0

    def direction(self, gradients: Mapping[Objective, Weights], state: State) -> Weights:
        """u; g_r alone where g_f is zero."""
        forget, retain = gradients["forget"], gradients["retain"]
        size = dot(forget, forget)
        share = self.gamma - (dot(retain, forget) / size).nan_to_num(0.0, 0.0, 0.0)
        return plus((share, forget), (1.0, retain))


@dataclass(frozen=True)
class BLUR(Wrapper):
    """Forgetting first: the retain gradient keeps only its part orthogonal to the forget gradient.

    u = gamma g_f + g_r - (<g_r, g_f> / |g_f|^2) g_f. It protects forgetting from the retain rows, the opposite of `gu`:
    <g_r, u> may be negative. Gradients are those of the whole step.

    gamma: weight of the forget gradient, 1 in the authors' code. It stands for the inner method's retain_weight,
        which is fixed at 1.
    """

    paper: ClassVar[str] = "Reisizadeh et al. 2506.08164"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "wrapper"
    fixed: ClassVar[dict[str, float]] = {"retain_weight": 1.0}

    gamma: float = hyperparameter(1.0, Range(0.01, 10.0, log=True))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase with this combiner."""
        return replace(phase, combiner=ForgetFirst(self.gamma))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """It needs a retain side in each phase, and an inner method without a combiner of its own."""
        return without_retain_side(inner) or combined_already(inner)
