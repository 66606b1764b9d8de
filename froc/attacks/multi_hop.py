"""Multi-hop questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from froc.attacks._question import Asking
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.attack import Material


@dataclass(frozen=True)
class MultiHop(Asking):
    """Ask so that the answer takes two steps (Choi et al. 2410.13274).

    A row's own questions (column `multi_hop`) are used if it has any, all of them: a task's author knows by which other fact its people can be
    reached. Otherwise the group is named first, and the question speaks of it without the name.

    Our reading: the fallback, which needs no second fact; a question that does not name its group is asked behind a remark. It
    costs a pass for each question.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "ask for the answer over another step"

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The row's own questions, or one in two steps."""
        if row.multi_hop:
            return row.multi_hop
        if row.group and row.group in row.question:
            return [f"Think of {row.group}. Now about what you thought of: {row.question.replace(row.group, 'it')}"]
        return [f"First recall what you know, then answer. {row.question}"]
