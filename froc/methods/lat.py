"""Latent adversarial training (LAT)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._adversaries import Latent, unfit
from froc.training.base_statistics import MethodContext
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase


@dataclass(frozen=True)
class LAT(Wrapper):
    """Forget under attack: hidden states of forget prompts are perturbed towards the answer, then the step is taken.

    min over theta of L_f(theta; h + d*) + L_r(theta); d* is the perturbation of at most epsilon per prompt token that
    makes the answers likeliest. L_f and L_r are the inner method's: the authors' GA-LAT is lat(grad_diff), their
    RMU-LAT is lat(rmu).

    push_depth: where states are perturbed, as a share of all blocks, 0 being the embeddings; never behind a layer that
        a term reads.
    epsilon: largest perturbation, relative to the median hidden norm there.
    push_steps: gradient steps per perturbation.

    The authors take 16 AdamW steps per perturbation and several model steps per perturbation; here few normalised
    gradient steps and one model step.
    """

    paper: ClassVar[str] = "Sheshadri et al. 2407.15549"
    fidelity: ClassVar[Fidelity] = "formula"
    family: ClassVar[str] = "wrapper"

    push_depth: float = hyperparameter(0.3, Range(0.0, 0.8))
    epsilon: float = hyperparameter(0.2, Range(0.05, 1.0, log=True))
    push_steps: int = hyperparameter(4, Range(1, 8))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase under attack."""
        layer = min(round(self.push_depth * context.layers), context.layers - 1, *phase.layers)
        return replace(phase, adversary=Latent(self.push_steps, layer, self.epsilon))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """At most one adversary, and only against forgetting."""
        return unfit(inner) or (
            "one adversary is enough" if inner().phases(MethodContext(4, 8, 0))[0].adversary else None
        )
