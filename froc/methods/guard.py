"""Guided unlearning by data attribution (GUARD)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from froc.fidelity import Fidelity
from froc.hyperparameters import Range, hyperparameter
from froc.models.forward import Forward
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, MethodContext
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import State, Weighter


@dataclass(frozen=True)
class Unaligned(Weighter):
    """n softmax(-a / temperature) over all n forget rows: mean 1, small for rows whose gradient is aligned with the retain rows'."""

    needs: ClassVar[tuple[str, ...]] = ("alignment",)
    temperature: float = 1.0

    def weights(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        """(B,) weights, fixed before training."""
        every = -reference["alignments"] / self.temperature
        return len(every) * (-reference["alignment"] / self.temperature - every.logsumexp(0)).exp()


@dataclass(frozen=True)
class GUARD(Wrapper):
    """Weight forget rows by how little their gradients align with those of the retain rows.

    a_i = <gradient of row i's NLL, mean gradient of the retain rows' NLL> at the base model, standardised over the
    forget rows; the row's loss has the weight w_i = n softmax(-a / temperature)_i.

    temperature: large values weight all rows equally; at small ones some rows are hardly forgotten.

    Our reading (the paper's text could not be read): the inner product, taken over the last block's parameters and at
    most 512 retain rows, and the softmax.
    """

    paper: ClassVar[str] = "2506.10946"
    fidelity: ClassVar[Fidelity] = "reading"
    family: ClassVar[str] = "wrapper"

    temperature: float = hyperparameter(1.0, Range(0.1, 10.0, log=True))

    def change(self, phase: Phase, context: MethodContext) -> Phase:
        """The forget side's terms, weighted."""
        weigh = Unaligned(self.temperature)
        parts = {
            name: replace(part, weighters=(*part.weighters, weigh)) if part.objective == "forget" else part
            for name, part in phase.parts.items()
        }
        return replace(phase, parts=parts)

    @classmethod
    def incompatibility(cls, inner: type[Method]) -> str | None:
        """It needs retain rows to align with, and rows that exist before training (no rollouts)."""
        if any(phase.rollout for phase in inner().phases(PLACEHOLDER_CONTEXT)):
            return "needs a method whose rows are the task's"
        return None if "retain" in inner.trained_roles() else "needs a method that trains on retain rows"
