"""More trials in the same run folder, as long as its calibration queries are sealed.

What the search may try is no part of what is certified, so that a longer search on search queries alone spends nothing. The new
plan names the digests of those that it extends, under which the first trials were started.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from froc.search.plan import Plan, refuse_other_plan
from froc.search.run_folder import Folder, of_document, write_json

GROWING = ("trials", "candidates")
"""Fields of a plan's search that may become larger."""


def allowed(old: Mapping[str, Any], new: Mapping[str, Any], folder: Folder) -> bool:
    """Whether a new plan asks for more trials than the old one, nothing was sealed and no other driver shares the study."""
    before, now = dict(old.get("search") or {}), dict(new["search"])
    more = int(before.get("trials", 0)) < int(now["trials"])
    return more and folder.read(folder.seal) is None and not now["shared"]


def grown(old: Mapping[str, Any], new: Mapping[str, Any], _folder: Folder) -> dict[str, Any]:
    """The new plan with the old one's number of trials: what has to be the same in both."""
    before = dict(old.get("search") or {})
    same = {name: before.get(name) for name in GROWING}
    return {**new, "search": {**new["search"], **same}}


def grow(plan: Plan, folder: Folder) -> Plan:
    """Replace the old plan by the new one and keep the old one beside it; its signature covered the old one only."""
    old = folder.read(folder.plan)
    assert old is not None
    refuse_other_plan(old, grown(old, plan.document, folder))
    former = of_document(folder.plan)
    extends = [former, *old.get("extends", [])]
    for name in ("plan.json", "plan.dsse.json", "plan.tsr"):
        path = folder.path / name
        if path.exists():
            path.rename(folder.path / f"{former[:8]}-{name}")
    kept: dict[str, Any] = {name: old[name] for name in ("created", "before", "notes") if name in old}
    document = {**plan.document, **kept, "extends": extends}
    write_json(folder.plan, document)
    return replace(plan, document=document)
