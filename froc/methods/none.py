"""The control that does nothing."""

from dataclasses import dataclass
from typing import ClassVar

from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase


@dataclass(frozen=True)
class Untouched(Method):
    """The base model as it is, theta_0: what any method must beat. One trial, without a step."""

    paper: ClassVar[str] = "a control"
    family: ClassVar[str] = "control"

    lr: float = 0.0
    epochs: int = 0

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """None."""
        return ()
