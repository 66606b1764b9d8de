"""A search whose result did not justify opening the calibration queries: the result, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from froc.data.task import FORGETTING
from froc.loss_table import SCALE
from froc.risk.claim import Candidate
from froc.search.plan import Plan
from froc.search.run_folder import Folder, write_json
from froc.search.sealed import ranking

MIN_FALL = 0.02
"""A risk that fell by less than this counts as unchanged."""


def write_unopened(
    folder: Folder,
    nearest: Sequence[Candidate],
    sums: ranking.Sums,
    budget: Mapping[str, float],
    base: Mapping[str, Mapping[str, Any]],
    trials: int,
) -> None:
    """Record why nothing was opened. nearest: candidates, best first. base: see `froc.risk.positive_control.document`."""
    means = {
        config: {risk: total / (SCALE * count) for risk, (total, count) in of.items()} for config, of in sums.items()
    }
    best = nearest[0] if nearest else None
    write_json(
        folder.unopened,
        {
            "format": 1,
            "trials": trials,
            "closest": best and {"config": best.config, "method": best.method, "search": means[best.config]},
            "reason": _reason(best, means, budget, base),
        },
    )


def document(plan: Plan, folder: Folder, base: Mapping[str, Any]) -> dict[str, Any]:
    """The document that replaces a certificate where nothing was opened: nothing is certified, and the queries stay sealed."""
    outcome = folder.read(folder.unopened)
    assert outcome is not None
    return {
        "format": 2, "budget": dict(plan.claim.budget), "confidence": plan.claim.confidence, "opened": False,
        "candidates": [], "certified": [], "screened": None, "chosen": None, "closest": outcome["closest"], "warnings": [],
        "sequential": None, "base": dict(base), "reason": outcome["reason"],
    }  # fmt: skip


def _reason(
    best: Candidate | None,
    means: Mapping[str, Mapping[str, float]],
    budget: Mapping[str, float],
    base: Mapping[str, Mapping[str, Any]],
) -> str:
    reason = "nothing worth opening: no configuration is near its budgets on search queries, so the calibration queries stay sealed"
    if best is not None:
        named = ", ".join(
            f"{risk} {means[best.config][risk]:.3f} (budget {alpha:g}{_share_of(base.get(risk, {}))})"
            for risk, alpha in budget.items()
        )
        reason += f"; closest is {best.config} ({best.method}) with {named}"
    before = base.get(FORGETTING, {}).get("before")
    lowest = min((of[FORGETTING] for of in means.values() if FORGETTING in of), default=None)
    if before is not None and lowest is not None and lowest > before - MIN_FALL:
        return (
            f"{reason}; no trial moved forgetting from the base model's {before:.3f} (lowest {lowest:.3f}): raise the learning "
            "rates (--space lr=LOW:HIGH), train longer (--space epochs=5:20) or more parameters (--train full)"
        )
    return f"{reason}; the same command with more --trials goes on in this run folder, or raise the budget in a new one"


def _share_of(shown: Mapping[str, Any]) -> str:
    return f", a share of the base model's {shown['before']:.3f}" if shown.get("relative") else ""
