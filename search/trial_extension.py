"""More trials in the same run folder, as long as its calibration queries are sealed.

The number of trials is no part of what is certified, so a longer search, which reads search queries alone, spends no confidence. The
new plan names the digests of the plans that it extends, under which the first trials were started.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from froc.search.plan import Plan, refuse_other_plan
from froc.search.run_folder import Folder, of_document, write_json

EXTENDABLE = ("trials", "candidates")
"""Fields of a plan's search that an extension may change."""


def allowed(old: Mapping[str, Any], new: Mapping[str, Any], folder: Folder) -> bool:
    """Whether a new plan asks for more trials than the old one, nothing was sealed and no other driver shares the study."""
    before, now = dict(old.get("search") or {}), dict(new["search"])
    more = int(before.get("trials", 0)) < int(now["trials"])
    return more and folder.read(folder.seal) is None and not now["shared"]


def unextended(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new plan with the old one's trials and candidates; it must be equal to the old plan."""
    before = dict(old.get("search") or {})
    return {**new, "search": {**new["search"], **{name: before.get(name) for name in EXTENDABLE}}}


def extend(plan: Plan, folder: Folder) -> Plan:
    """Write the new plan in place of the old one, which is kept beside it with its signature; the new plan is unsigned."""
    old = folder.read(folder.plan)
    assert old is not None
    refuse_other_plan(old, unextended(old, plan.document))
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
