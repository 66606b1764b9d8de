"""The state of a monitored stream between calls, and its status."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from froc import hashing
from froc.loss_table import SCALE
from froc.monitoring.e_process import BETS, largest_excluded_budget

DEFAULT_LEVEL = 0.05


ALARM_MARGIN = 1e-9
"""Margin by which the logarithm of an e-value must exceed the threshold, so that floating-point error raises no alarm."""


MAX_COURSE_POINTS = 400
"""Points of a course that a state keeps for the figure."""


DIGEST_BYTES = 8
"""Bytes of a row's digest."""


RowDigests = NDArray[np.uint64]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Course(_Strict):
    """One risk of a stream. counts: thousandths -> number of losses; logs: ln A of each bet, None before the first loss;
    e: ln E now; largest: its maximum so far; alarm: number of the loss, from 1, at which it first reached the threshold.
    course: every `stride`-th (n, mean, ln E).
    """

    budget: float = Field(gt=0, lt=1)
    unit: Literal["query", "group"]
    n: int = Field(default=0, ge=0)
    counts: dict[str, int] = {}
    logs: list[float | None] = [None] * len(BETS)
    e: float = 0.0
    largest: float = 0.0
    alarm: int | None = None
    stride: int = Field(default=1, ge=1)
    course: list[tuple[int, float, float]] = []

    @property
    def mean(self) -> float | None:
        """Mean loss so far."""
        total = sum(int(loss) * count for loss, count in self.counts.items())
        return total / (SCALE * self.n) if self.n else None


class State(_Strict):
    """The state between calls. certificate: digest of its content; seen: digests of counted rows; digest: of all else in the file, by which
    damage is noticed (older files have none)."""

    format: Literal[1] = 1
    certificate: str = Field(pattern=r"^[0-9a-f]{64}$")
    config: str
    level: float = Field(gt=0, lt=1)
    risks: dict[str, Course]
    seen: str = ""
    digest: str = ""

    @property
    def content(self) -> str:
        """Digest of everything but the digest."""
        return hashing.sha256_json(self.model_dump(mode="json", exclude={"digest"}))

    def sealed(self) -> "State":
        """The same with its digest."""
        return self.model_copy(update={"digest": self.content})


@dataclass(frozen=True)
class StreamStatus:
    """The status of a stream. counted, skipped: rows of this call."""

    state: State
    counted: int
    skipped: int
    alarms: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        alarms = tuple(risk for risk, course in self.state.risks.items() if course.alarm is not None)
        object.__setattr__(self, "alarms", alarms)

    @property
    def threshold(self) -> float:
        """The e-value at which the alarm of a risk is raised."""
        return len(self.state.risks) / self.state.level

    def at_least(self, risk: str) -> float | None:
        """Lower bound on the risk: with confidence 1 - level for all risks and times, it was at least this large at some time.

        See `froc.monitoring.e_process.largest_excluded_budget`.
        """
        course = self.state.risks[risk]
        counts = np.zeros(SCALE + 1)
        for loss, count in course.counts.items():
            counts[int(loss)] = count
        return largest_excluded_budget(counts, self.threshold) if course.n else None

    @property
    def summary(self) -> tuple[str, ...]:
        """What the numbers mean, in sentences."""
        lines = [f"{self.counted} rows counted, {self.skipped} were counted before."]
        for risk in self.alarms:
            course = self.state.risks[risk]
            lines.append(
                f"Alarm: the {risk} risk has exceeded its budget of {course.budget:g} (e-value {self.threshold:g} reached at loss "
                f"{course.alarm} of {course.n}). If no risk had, an alarm at any time had a chance of at most {self.state.level:g}."
            )
        if not self.alarms:
            lines.append("No alarm: the losses are no proof of a broken budget. That is no proof of a kept one.")
        return tuple(lines)

    def document(self) -> dict[str, Any]:
        """A JSON document."""
        risks = {
            risk: {"n": course.n, "mean": course.mean, "at_least": self.at_least(risk), "budget": course.budget, "unit": course.unit,
                   "log_e": course.e, "largest_log_e": course.largest, "alarm": course.alarm}
            for risk, course in self.state.risks.items()
        }  # fmt: skip
        return {
            "config": self.state.config, "certificate": self.state.certificate, "level": self.state.level,
            "threshold": self.threshold, "risks": risks, "alarms": list(self.alarms), "counted": self.counted,
            "skipped": self.skipped, "said": list(self.summary),
        }  # fmt: skip
