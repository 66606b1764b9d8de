"""What the plan of an earlier call in a run folder says, read before there is a job. Torch-free."""

from collections.abc import Mapping
from typing import Any

from froc.data.splits import Draw
from froc.search.run_folder import Folder

LEGACY_DEFAULTS: dict[str, dict[str, Any]] = {"search": {"parallel": 1, "until": "trials", "shared": False}}
"""Values of fields that plans of older versions lack."""


def parallel_of(folder: Folder) -> int | None:
    """How many packs an earlier call in this run folder had in flight; None where there was none."""
    old = folder.read(folder.plan)
    return None if old is None else int((LEGACY_DEFAULTS["search"] | dict(old.get("search") or {}))["parallel"])


def label_of(folder: Folder) -> str | None:
    """What an earlier call in this run folder renamed the queries' ids by, empty for nothing; None where there was none."""
    old = folder.read(folder.plan)
    return None if old is None else str(old["split"].get("label", ""))


def draw_of(plan: Mapping[str, Any] | None) -> Draw:
    """How a plan divides its queries; the way of today where there is no plan yet."""
    return "by-row" if plan is None or plan["split"].get("draw") == "by-row" else "in-order"
