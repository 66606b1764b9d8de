"""Adversarial unlearning with soft prompts."""

from dataclasses import dataclass, replace
from typing import ClassVar

from froc.hyperparameters import Range, hyperparameter
from froc.methods._adversaries import SoftPrompt, unfit
from froc.training.base_statistics import MethodContext
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase


@dataclass(frozen=True)
class AdvUnlearn(Wrapper):
    """Forget under attack: vectors before the prompt are found that bring the answers back, then the step is taken.

    AdvUnlearn's idea, made for the text encoders of image models, on language models (our reading): min over theta of
    L_f(theta; [v*, x]) + L_r(theta), v* found by signed gradient steps on the forget rows of each pass, from where the last pass left
    it (a step's rows are one pass or, for memory's and padding's sake, several). The authors take 30 steps, and none in the first
    fifth of training; we take few, from the start. tokens: how many vectors, 1 in the authors' code. push_rate: of their steps, as
    a share of the drawn embeddings' root mean square; nothing bounds v* but the steps' size and number.
    """

    paper: ClassVar[str] = "Zhang et al. 2405.15234"
    family: ClassVar[str] = "wrapper"

    tokens: int = hyperparameter(2, Range(1, 8))
    push_steps: int = hyperparameter(2, Range(1, 8))
    push_rate: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The same, under attack."""
        return replace(phase, adversary=SoftPrompt(self.push_steps, self.tokens, self.push_rate, context.seed))

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """One adversary, and only against forgetting by likelihood."""
        phase = inner().phases(MethodContext(4, 8, 0))[0]
        if not phase.needs_logits:
            return "moves the places of hidden states, which the other method reads"
        return unfit(inner) or ("one adversary is enough" if phase.adversary else None)
