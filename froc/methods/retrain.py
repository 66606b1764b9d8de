"""Control: the model that never saw the forget rows."""

from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.training.base_statistics import MethodContext
from froc.training.method import Method
from froc.training.phase import Phase


@dataclass(frozen=True)
class Retrained(Method):
    """The task's retrained model, trained like the base but without the forget rows: what unlearning approximates.

    One trial, no steps. The embedded task's first request has one, and so do task folders whose task.toml names one.
    """

    paper: ClassVar[str] = "a control"
    fidelity: ClassVar[Fidelity] = "own"
    family: ClassVar[str] = "control"
    loads_retrained: ClassVar[bool] = True

    lr: float = 0.0
    epochs: int = 0

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """None."""
        return ()
