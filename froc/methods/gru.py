"""Gradient rectified unlearning (GRU)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch.nn import Parameter

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._combining import combined_already, plus, without_retain_side
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner, GradientProbe, dot
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import Objective, State, Weights


@dataclass(frozen=True)
class Rectified(Combiner):
    """g_f - (min(0, <g_f, m>) / |m|^2) m + g_r, m the moving average gamma g_r + (1 - gamma) m of the retain gradients.

    m starts at 0, so at the first step it is gamma g_r.
    """

    # no probe is taken: gradients without the loss scale, which an average over steps must not contain
    needs_probes: ClassVar[bool] = True
    gamma: float = 0.99

    def direction_with_probes(
        self,
        gradients: Mapping[Objective, Weights],
        probe: GradientProbe,
        parameters: Mapping[str, Parameter],
        state: State,
    ) -> Weights:
        """The rectified direction, over all parameters at once."""
        forget, retain = gradients["forget"], gradients["retain"]
        mean = plus((self.gamma, retain), (1.0 - self.gamma, state.get("retain_mean", {})))
        state["retain_mean"] = mean
        conflict = dot(forget, mean).clamp_max(0.0)
        # a product of 0 where there is no conflict keeps the device from being waited for
        share = (conflict / dot(mean, mean)).nan_to_num(0.0, 0.0, 0.0)
        return plus((1.0, forget), (1.0, retain), (-share, mean))


@dataclass(frozen=True)
class GRU(Wrapper):
    """Take from the forget gradient what raises the retain loss, by a moving average of the retain gradient.

    min |g - g_f|^2 subject to <g, m> >= 0: g = g_f - (min(0, <g_f, m>) / |m|^2) m, over all parameters, with m <- gamma
    g_r + (1 - gamma) m; AdamW receives g + g_r. Where the two do not conflict g is g_f. `gu` projects the optimiser's
    update instead of the gradient, `blur` takes the forget direction out of the retain gradient.

    gamma: weight of the newest retain gradient; 0.6 and 0.99 in the authors' scripts.

    g_r is the gradient of the inner method's retain objective, its weight included, as in the authors' `gru+ce`; their
    plain form leaves g_r out of the step. Their option to clip the cosine at -0.5 is left out.
    """

    paper: ClassVar[str] = "Wang et al. 2503.09117"
    fidelity: ClassVar[Fidelity] = "code-checked"
    family: ClassVar[str] = "wrapper"

    gamma: float = hyperparameter(0.99, Range(0.3, 1.0))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase with this combiner."""
        return replace(phase, combiner=Rectified(self.gamma))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """It needs a retain side in each phase, and an inner method without a combiner of its own."""
        return without_retain_side(inner) or combined_already(inner)
