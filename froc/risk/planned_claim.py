"""What a plan's document asks to be certified. Torch-free."""

from collections.abc import Mapping
from typing import Any

from froc.risk.claim import Claim


def claim_of(plan: Mapping[str, Any]) -> Claim:
    """The claim of a plan, before any opening; what plans of older versions do not say is as it was then."""
    after = plan.get("after")

    def by_risk(name: str) -> dict[str, Any]:
        return dict(sorted((plan.get(name) or {}).items()))

    return Claim(
        budget=by_risk("budget"),
        bound=by_risk("bound"),
        unit=dict(sorted(plan["task"]["units"].items())),
        population=by_risk("population"),
        listed=by_risk("listed"),
        weights=by_risk("weights"),
        largest=by_risk("largest"),
        estimand=by_risk("estimand"),
        confidence=plan["confidence"],
        procedure=plan["procedure"],
        radius=plan["radius"],
        openings=plan["openings"],
        joint=plan["joint"],
        sequential=plan["sequential"],
        unmeasured=0 if after is None or after["measured"] else len(after["tasks"]),
        keyed=bool(plan.get("estimand")),
        relative=tuple(sorted(set(plan.get("relative") or ()))),
        own_levels=plan.get("levels") == "own",
        extendable=bool(plan.get("extendable")),
        series=int(plan.get("series") or 1),
    )
