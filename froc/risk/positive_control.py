"""The positive control: results of the base model under the same measurements. Torch-free.

A bound on remaining knowledge means something only if there was knowledge before. So the base model is measured like a candidate,
on search queries before the first trial and on calibration queries when they are opened; it is fixed beforehand, so this
costs no confidence. A risk is *vacuous* unless the base model is shown to exceed the budget:

    exceeds   the base model's own risk must be above the budget (knowledge to be forgotten, attacked or not)
    ceiling   the base model's score must be above the budget, as no more than it can be lost (knowledge to be kept); for
              relative budgets it must be above 0
    none      no condition: faults such as refusals, and what earlier requests removed, which the base model should not show;
              never for the risks forgetting and utility

Losses of the base model are *absences*, 1 - score, in thousandths rounded up: an upper bound on their mean gives a lower
bound on the score, and rounding goes against the claim as everywhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from froc.data.task import RISKS, UTILITY, request_of
from froc.loss_table import SCALE
from froc.plugins import builtin_names
from froc.risk.claim import Claim, Evidence, level
from froc.risk.p_values import uppers
from froc.risk.rounding import at_least, at_most, down
from froc.risk.weighted_sum import COMBINED

Kind = Literal["exceeds", "ceiling", "none"]
BASE = "base"
"""The base model's name among the configurations of a loss table; no candidate has it."""
FAULTS = ("refusal", "gibberish")
"""Metrics of faults, which a good base model does not have."""
ADVICE = (
    "is it the model that was taught these data (--model, --base), asked with the prompt that it was taught with (template, system, "
    "chat template), are answers free of stray blanks, and does the metric see them"
)


@dataclass(frozen=True)
class Control:
    """The base model's absences, as a checked loss table with the one configuration `BASE`. kinds: risk -> what it must show."""

    table: pl.DataFrame = field(repr=False)
    kinds: Mapping[str, Kind]


def kind_of(risk: str, measurement: str) -> Kind:
    """What the base model must show under a measurement, as plans write it (`froc.measuring.measurement`)."""
    if risk in RISKS:
        # reports call these two risks knowledge, whatever the metric
        return "ceiling" if risk == UTILITY else "exceeds"
    metric = metric_of(measurement)
    pool = measurement.rpartition("/")[2]
    if request_of(risk) is not None or request_of(pool) is not None:
        return "none"
    if metric in FAULTS or re.match(r"membership:(\S+,)?over=1\b", measurement):
        return "none"
    return "ceiling" if pool == UTILITY else "exceeds"


def metric_of(measurement: str) -> str:
    """Name of a measurement's metric."""
    return re.split(r"[:@/]", measurement, maxsplit=1)[0]


def built_in(metric: str) -> bool:
    """Whether a metric is part of froc, so that every verifier knows its control."""
    return metric in builtin_names("froc.metrics")


def document(kinds: Mapping[str, Kind], absences: Mapping[str, Evidence], claim: Claim) -> dict[str, Any]:
    """risk -> the base model's result: `before` (its risk, or its score under `ceiling`) and a lower bound on it.

    absences: risk -> evidence of one row. The lower bounds hold simultaneously, at the claim's confidence. vacuous: whether
    the budget could have been met without removing, or without keeping, anything.
    """
    upper = uppers(claim, absences, level(claim) / len(claim.risks))
    shown = {
        risk: _of_risk(kinds[risk], absences[risk], upper[risk][0], claim.budget.get(risk), risk in claim.relative)
        for risk in claim.risks
    }
    if COMBINED in claim.budget:
        shown[COMBINED] = _of_sum(shown, claim)
    return shown


def vacuous(base: Mapping[str, Any] | None) -> list[str]:
    """Vacuous risks: nothing can be certified about them."""
    return [risk for risk, shown in (base or {}).items() if shown["vacuous"]]


def score_threshold(budget: float, relative: bool) -> float:
    """What the base model's result must exceed."""
    return 0.0 if relative else budget


def _of_risk(kind: Kind, absence: Evidence, upper: float, budget: float | None, relative: bool) -> dict[str, Any]:
    losses = np.asarray(absence.losses[0])
    measured = int(losses.size if absence.sizes is None else absence.sizes.sum())
    total, count = int(absence.search_sums[0]) + int(losses.sum(dtype=np.int64)), absence.n_searched + measured
    lower = max(0.0, down(1.0 - upper))
    return {
        "control": kind,
        "n": int(losses.size),
        "before": round(1.0 - total / (SCALE * count), 6) if count else 0.0,
        "lower": lower,
        "vacuous": kind != "none" and budget is not None and lower <= score_threshold(budget, relative),
        **({"relative": True} if relative else {}),
    }


def _of_sum(shown: Mapping[str, Mapping[str, Any]], claim: Claim) -> dict[str, Any]:
    """The combined risk. The base model loses no utility against itself, so its forgetting risks must exceed the budget alone;
    where all parts are losses of score, its score must.
    """
    kinds = {shown[risk]["control"] for risk in claim.parts}
    kind: Kind = "exceeds" if "exceeds" in kinds else "ceiling" if "ceiling" in kinds else "none"
    parts = {risk: claim.weights[risk] for risk in claim.parts if kind != "none" and shown[risk]["control"] == kind}
    lower = down(sum(weight * shown[risk]["lower"] for risk, weight in parts.items()))
    return {
        "control": kind,
        "n": min((int(shown[risk]["n"]) for risk in parts), default=0),
        "before": round(sum(weight * shown[risk]["before"] for risk, weight in parts.items()), 6),
        "lower": lower,
        "vacuous": kind != "none" and lower <= claim.budget[COMBINED],
    }


def sentences(base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], config: str | None) -> list[str]:
    """Results before and bounds after unlearning, a line for each risk. config: whose bounds are given, if it is among the rows."""
    row = next((shown for shown in rows if shown["config"] == config), None)
    return [
        _sentence(risk, shown, None if row is None else row["cur"][risk]["simultaneous"])
        for risk, shown in base.items()
    ]


def _sentence(risk: str, shown: Mapping[str, Any], after: Any) -> str:
    before, lower = f"{float(shown['before']):.3f}", f"at least {at_least(float(shown['lower']))}"
    now = "" if after is None else f", at most {at_most(float(after))} now"
    if shown["control"] == "ceiling":
        part = "a share of " if shown.get("relative") else ""
        lost = "" if after is None else f", of which at most {part}{at_most(float(after))} is lost"
        return f"{risk}: the base model scores {before} ({lower}){lost}"
    return f"{risk}: {before} before ({lower}){now}"


def complaint(risk: str, shown: Mapping[str, Any], budget: float) -> str:
    """Why a risk is vacuous, and what to check."""
    if shown.get("relative"):
        return (
            f"{risk}: the base model itself scores {shown['before']:.3f} (at least {at_least(shown['lower'])}), so that there is nothing which "
            f"{budget:g} could be a share of: {ADVICE}"
        )
    if shown["control"] == "ceiling":
        return (
            f"{risk}: the base model itself scores {shown['before']:.3f} (at least {at_least(shown['lower'])}), so that hardly more than its "
            f"budget of {budget:g} could be lost whatever happened: {ADVICE}"
        )
    return (
        f"{risk}: the base model itself shows {shown['before']:.3f} (at least {at_least(shown['lower'])}), which does not exceed the "
        f"budget of {budget:g}: nothing was there that could be removed, or the measurement does not see it: {ADVICE}"
    )
