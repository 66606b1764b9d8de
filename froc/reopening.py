"""What a certificate on given losses opens: which queries, asked what; and whether a run has opened them before. Torch-free."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from froc import digest
from froc.claim import Claim

CERTIFICATE = "certificate.json"
SEALED = ("seal.json", CERTIFICATE)
"""Files that a run leaves beside or above its losses once its calibration queries are sealed or opened."""


@dataclass(frozen=True)
class Opening:
    """Calibration queries that one `froc certify` reads, and the options that it asks with.

    queries: risk -> ids, as the table names them. options: digest of everything that decides what may be certified.
    """

    queries: Mapping[str, tuple[str, ...]]
    options: str


def opening(losses: pl.DataFrame, claim: Claim, design: Mapping[str, Any]) -> Opening:
    """What a ledger of openings counts. losses: a checked table; design: how the configurations came to be listed."""
    rows = losses.filter(pl.col("split") == "calibration").select("risk", "query").unique().sort("risk", "query")
    queries = {str(risk): tuple(some["query"]) for (risk,), some in rows.group_by("risk", maintain_order=True)}
    configs = sorted(losses["config"].unique().to_list())
    return Opening(queries, digest.of_json({"claim": asdict(claim), "design": dict(design), "configs": configs}))


def opened_for(path: Path) -> Mapping[str, Any] | None:
    """The certificate of the run that a table is the losses of, its plan where that is all there is; None elsewhere."""
    for folder in (path.parent, path.parent.parent):
        if (folder / "plan.json").is_file() and any((folder / name).is_file() for name in SEALED):
            for name in (CERTIFICATE, "plan.json"):
                try:
                    found: Any = json.loads((folder / name).read_text(encoding="utf-8"))
                except (OSError, ValueError):
                    continue
                if isinstance(found, dict) and isinstance(found.get("budget"), dict):
                    return found
    return None


def further_look(before: Mapping[str, Any] | None, claim: Claim) -> str | None:
    """A warning where a run's own calibration losses are asked something else than the run asked."""
    if before is None or (before["budget"] == claim.budget and before.get("confidence") == claim.confidence):
        return None
    asked = " and ".join(f"{risk} at most {alpha:g}" for risk, alpha in before["budget"].items())
    return (
        f"these queries were opened for {asked} by the run that they belong to; this is a further look at them, and what a further "
        "look certifies does not hold with the stated confidence (take fresh queries, or plan the looks beforehand: --openings)"
    )
