"""Entries of the plan of an earlier call in a run folder, read without a job. Torch-free."""

from collections.abc import Mapping
from typing import Any

from froc.data.splits import Draw
from froc.search.run_folder import Folder

LEGACY_DEFAULTS: dict[str, dict[str, Any]] = {"search": {"parallel": 1, "until": "trials", "shared": False}}
"""Values of fields that older plans lack."""


def parallel_of(folder: Folder) -> int | None:
    """Number of packs that an earlier call in this run folder had in flight; None without one."""
    old = folder.read(folder.plan)
    return None if old is None else int((LEGACY_DEFAULTS["search"] | dict(old.get("search") or {}))["parallel"])


def label_of(folder: Folder) -> str | None:
    """By what an earlier call renamed the queries' ids, "" for no renaming; None without an earlier call."""
    old = folder.read(folder.plan)
    return None if old is None else str(old["split"].get("label", ""))


def questions_of(folder: Folder) -> int | None:
    """Seed of the embedded task's queries in an earlier call's plan; None without one, or where the plan names none."""
    old = folder.read(folder.plan) or {}
    return None if old.get("questions") is None else int(old["questions"])


def draw_of(plan: Mapping[str, Any] | None) -> Draw:
    """How a plan divides its queries; today's way without a plan."""
    return "by-row" if plan is None or plan["split"].get("draw") == "by-row" else "in-order"
