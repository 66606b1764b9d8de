"""The result of a plan: numbers and sentences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from froc.planning.design_search import Design
from froc.planning.loss_distributions import Law
from froc.planning.pass_probability import DRAWS, Chance, FirstCandidate
from froc.risk.claim import Claim


@dataclass(frozen=True)
class LossAssumption:
    """The assumption about one risk. laws: expected risk -> distribution of a unit's loss; units: planned number."""

    first: FirstCandidate
    laws: Mapping[float, Law]
    words: str
    units: int | None

    def alike(self, counterpart: "LossAssumption") -> bool:
        """Whether both risks have the same plan."""
        mine, theirs = self.first, counterpart.first
        same = [(a.claim.budget[a.risk], a.claim.bound[a.risk], a.claim.unit[a.risk], a.claim.kind(a.risk),
                 a.claim.listed.get(a.risk), a.searched) for a in (mine, theirs)]  # fmt: skip
        if same[0] != same[1] or self.units != counterpart.units or self.laws.keys() != counterpart.laws.keys():
            return False
        return all(np.array_equal(law, counterpart.laws[risk]) for risk, law in self.laws.items())


@dataclass(frozen=True)
class PlanRow:
    """One number of units, for risks with the same plan. lost: largest number of losses equal to 1 that still certifies (0-1 losses
    only).
    """

    risks: tuple[str, ...]
    units: int
    lost: int | None
    chances: tuple[Chance, ...]
    note: str = ""


@dataclass(frozen=True)
class PlanResult:
    """A plan.

    zero: risk -> units needed at zero loss. needed: risk -> units with which all risks pass with probability `power`,
    None where no number suffices. joint_probability: that all risks pass with the planned units, under independence, and
    its lower bound under any dependence. designs: those of `design="auto"`, the recommended one first; command: the
    search command for it.
    """

    claim: Claim
    candidates: int
    power: float
    risks: Mapping[str, tuple[float, ...]]
    zero: Mapping[str, int]
    needed: Mapping[str, int | None]
    ladder: tuple[PlanRow, ...]
    joint_probability: tuple[Chance, float] | None
    summary: tuple[str, ...]
    share: float | None = None
    designs: tuple[Design, ...] = ()
    command: str | None = None
    draws: tuple[int, int] = field(default=(0, DRAWS))

    def document(self) -> dict[str, Any]:
        """A JSON document."""
        joint = self.joint_probability
        return {
            "budget": dict(self.claim.budget), "confidence": self.claim.confidence, "procedure": self.claim.procedure,
            "bound": dict(self.claim.bound), "unit": dict(self.claim.unit), "candidates": self.candidates,
            "risks": {risk: list(levels) for risk, levels in self.risks.items()}, "power": self.power,
            "zero": dict(self.zero), "needed": dict(self.needed), "seed": self.draws[0], "draws": self.draws[1],
            "ladder": [{"risks": list(row.risks), "units": row.units, "lost": row.lost, "note": row.note,
                        "power": [vars(chance) for chance in row.chances]} for row in self.ladder],
            "together": joint and {"power": joint[0].value, "error": joint[0].error, "at_least": joint[1]},
            "designs": [chance.document() for chance in self.designs], "command": self.command, "said": list(self.summary),
        }  # fmt: skip
