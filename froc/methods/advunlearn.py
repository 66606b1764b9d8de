"""Adversarial unlearning with soft prompts (AdvUnlearn)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.methods._adversaries import SoftPrompt, unfit
from froc.training.base_statistics import MethodContext
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase


@dataclass(frozen=True)
class AdvUnlearn(Wrapper):
    """Forget under attack: in each pass, soft-prompt vectors are trained to bring the answers back, then the step is taken.

    min over theta of L_f(theta; [v*, x]) + L_r(theta); v* takes signed gradient steps on the forget rows of each pass,
    from where the last pass left it (a step is one pass, or several where memory or padding require it). L_f and L_r
    are the inner method's.

    tokens: number of vectors; 1 in the authors' code.
    push_steps: gradient steps per pass.
    push_rate: their size, relative to the root mean square of the initial embeddings; nothing else bounds v*.

    Our reading: the paper attacks text encoders of image models; this is its idea for language models. The authors take
    30 steps, and none in the first fifth of training; here few steps are taken, from the start.
    """

    paper: ClassVar[str] = "Zhang et al. 2405.15234"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "wrapper"

    tokens: int = hyperparameter(2, Range(1, 8))
    push_steps: int = hyperparameter(2, Range(1, 8))
    push_rate: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The phase under attack."""
        return replace(phase, adversary=SoftPrompt(self.push_steps, self.tokens, self.push_rate, context.seed))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """At most one adversary, only against forgetting, and only where terms read likelihoods (it shifts positions of hidden states)."""
        phase = inner().phases(MethodContext(4, 8, 0))[0]
        if not phase.needs_logits:
            return "moves the places of hidden states, which the other method reads"
        return unfit(inner) or ("one adversary is enough" if phase.adversary else None)
