"""Control: the base model unchanged."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase


@dataclass(frozen=True)
class Untouched(Method):
    """The base model unchanged, theta_0: what every method must beat. One trial, no steps."""

    paper: ClassVar[str] = "a control"
    fidelity: ClassVar[Fidelity] = "own"
    family: ClassVar[str] = "control"

    lr: float = 0.0
    epochs: int = 0

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """None."""
        return ()
