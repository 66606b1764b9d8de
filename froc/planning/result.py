"""What a plan came to: numbers and sentences, without their wording or figure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from froc.planning.design_search import Design
from froc.planning.loss_distributions import Law
from froc.planning.pass_probability import DRAWS, Chance, First
from froc.risk.claim import Claim


@dataclass(frozen=True)
class Assumed:
    """What the units of one risk are like. laws: expected risk -> law of a unit's loss; units: how many are planned."""

    first: First
    laws: Mapping[float, Law]
    words: str
    units: int | None

    def alike(self, other: "Assumed") -> bool:
        """Whether the same numbers hold for both."""
        one, two = self.first, other.first
        same = [(a.claim.budget[a.risk], a.claim.bound[a.risk], a.claim.unit[a.risk], a.claim.kind(a.risk),
                 a.claim.listed.get(a.risk), a.searched) for a in (one, two)]  # fmt: skip
        if same[0] != same[1] or self.units != other.units or self.laws.keys() != other.laws.keys():
            return False
        return all(np.array_equal(law, other.laws[risk]) for risk, law in self.laws.items())


@dataclass(frozen=True)
class Rung:
    """One number of units of risks that are alike. lost: losses of 1 that it bears, where that is all that matters."""

    risks: tuple[str, ...]
    units: int
    lost: int | None
    chances: tuple[Chance, ...]
    note: str = ""


@dataclass(frozen=True)
class PlanResult:
    """What a plan came to.

    zero: risk -> units that are needed at zero loss. needed: risk -> units with which all risks pass with the chance
    `power`, None where no number does. together: the chance that all risks pass with the units that were asked about,
    and the least that it is if risks hang together. designs: what `design="auto"` tried, best first; command: the
    words for the best one.
    """

    claim: Claim
    candidates: int
    power: float
    risks: Mapping[str, tuple[float, ...]]
    zero: Mapping[str, int]
    needed: Mapping[str, int | None]
    ladder: tuple[Rung, ...]
    together: tuple[Chance, float] | None
    said: tuple[str, ...]
    share: float | None = None
    designs: tuple[Design, ...] = ()
    command: str | None = None
    draws: tuple[int, int] = field(default=(0, DRAWS))

    def document(self) -> dict[str, Any]:
        """A JSON document."""
        both = self.together
        return {
            "budget": dict(self.claim.budget), "confidence": self.claim.confidence, "procedure": self.claim.procedure,
            "bound": dict(self.claim.bound), "unit": dict(self.claim.unit), "candidates": self.candidates,
            "risks": {risk: list(some) for risk, some in self.risks.items()}, "power": self.power,
            "zero": dict(self.zero), "needed": dict(self.needed), "seed": self.draws[0], "draws": self.draws[1],
            "ladder": [{"risks": list(rung.risks), "units": rung.units, "lost": rung.lost, "note": rung.note,
                        "power": [vars(one) for one in rung.chances]} for rung in self.ladder],
            "together": both and {"power": both[0].value, "error": both[0].error, "at_least": both[1]},
            "designs": [one.document() for one in self.designs], "command": self.command, "said": list(self.said),
        }  # fmt: skip
