"""Whether a run has opened the losses that are to be certified, and with which budgets. Torch-free."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from froc.risk.claim import Claim

CERTIFICATE = "certificate.json"
SEALED = ("seal.json", CERTIFICATE)
"""Files that a run writes beside or above its losses when calibration queries are sealed or opened."""


def opened_for(path: Path) -> Mapping[str, Any] | None:
    """The certificate of the run that a loss table belongs to, or its plan where there is none; None for other tables."""
    for folder in (path.parent, path.parent.parent):
        if (folder / "plan.json").is_file() and any((folder / name).is_file() for name in SEALED):
            for name in (CERTIFICATE, "plan.json"):
                try:
                    document: Any = json.loads((folder / name).read_text(encoding="utf-8"))
                except (OSError, ValueError):
                    continue
                if isinstance(document, dict) and isinstance(document.get("budget"), dict):
                    return document
    return None


def further_look(before: Mapping[str, Any] | None, claim: Claim) -> str | None:
    """A warning where a run's calibration losses are certified with other budgets or another confidence than the run's."""
    if before is None or (before["budget"] == claim.budget and before.get("confidence") == claim.confidence):
        return None
    budgets = " and ".join(f"{risk} at most {alpha:g}" for risk, alpha in before["budget"].items())
    return (
        f"these queries were opened for {budgets} by the run that they belong to; this is a further look at them, and what a further "
        "look certifies does not hold with the stated confidence (take fresh queries, or plan the looks beforehand: --openings)"
    )
