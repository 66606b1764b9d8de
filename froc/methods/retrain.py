"""The control that was never told."""

from dataclasses import dataclass
from typing import ClassVar

from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase


@dataclass(frozen=True)
class Retrained(Method):
    """The model that the task brings, made as the base was but without the forget rows: what unlearning tries to come near to.

    One trial, without a step. The embedded task's first request brings one, and task folders whose task.toml names one.
    """

    paper: ClassVar[str] = "a control"
    family: ClassVar[str] = "control"
    loads_retrained: ClassVar[bool] = True

    lr: float = 0.0
    epochs: int = 0

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """None."""
        return ()
