"""The page with the most on it: twelve risks, 300 trials, names without end, a comparison, earlier requests, a shift."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from froc import hashing
from froc.audit import bundle_files, comparisons, rendering
from froc.audit import report as claims
from froc.audit.bundle_files import Trial
from froc.audit.documents import Plan, Seal
from froc.audit.report import Facts
from froc.loss_table import SCHEMA
from froc.measuring.named_risks import KNOWN, PROFILES
from tests.audit import conftest, variants

RISKS = PROFILES["strict"]
SHOUTED = "<script>alert(1)</script>`${x}`" + "W" * 160
"""As long as a hyperparameter's value may be."""
NASTY = "<script>alert(1)</script>\u202egnp.exe\u200b\u0007 😀🧪 Z\u0351\u0352\u0353\u0354\u0355 شركة \"'><img src=x> `${x}`\n---\n"
METHOD = f"{'w' * 64}({'m' * 64})"
"""The longest name that a method may have, nearly."""
ENDLESS = NASTY + "W" * 10_000
N = 120


@cache
def made() -> tuple[dict[str, Any], Facts]:
    """A report predicate, as it would be signed, and the facts that it follows from."""
    plan = Plan.model_validate(_plan())
    trials = tuple(_trial(i) for i in range(300))
    configs = [trial.config for trial in trials if trial.status == "complete"][:10]
    seal = Seal.model_validate(
        {
            "format": 1, "plan": "0" * 64, "search_losses": "0" * 64, "trials": 300, "calibration": {},
            "candidates": [
                {"config": c, "method": METHOD, "params": _params(), "weight": 1 / rank}
                for rank, c in enumerate(configs, start=1)
            ],
        }
    )  # fmt: skip
    files = {f"weights/model-{i:05d}-of-00040.safetensors": hashing.sha256_bytes(bytes([i])) for i in range(40)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "run").mkdir()
        base = conftest._plan() | {"model": _plan()["model"]}
        base["task"] = base["task"] | {"name": ENDLESS}
        (folder / "run" / "plan.json").write_text(variants.text(base), encoding="utf-8")
        compared = comparisons.read(comparisons.files(variants.make_comparison(folder / "run", folder / "both")), plan)
    facts = Facts(plan, "1" * 64, "2026-03-01T09:30:00Z", seal, trials, _losses(configs), files, "2" * 64, compared)
    report = {
        "schema": "1", "name": "a-name-of-sixty-four-characters-as-long-as-a-bundle-can-be-named", "sequence": 17,
        "issued": "2026-03-01T12:00:00Z", "expires": "2027-03-01T12:00:00Z", "supersedes": "3" * 64,
        "signers": [{"role": "engineer", "keyid": "4" * 64}], "harness": {"name": "froc", "version": "0.1.0"},
        "assuranceLevel": "self_attested", "asked": None, "opening": 2, **claims.derive(facts, 2, None),
        "evidence": bundle_files.listing(dict.fromkeys((*bundle_files.LIMITS, *bundle_files.COMPARED), b"x")),
    }  # fmt: skip
    return report, facts


def page(**more: Any) -> str:
    """Its page."""
    return rendering.html(*made(), **more)


def _plan() -> dict[str, Any]:
    per = dict.fromkeys(RISKS, "query")
    return conftest._plan() | {
        "task": {"name": ENDLESS, "digest": "a" * 64, "split_seed": 20261125, "seed_from": "auditor", "units": per, "notes": []},
        "model": {"name": ENDLESS, "digest": "b" * 64},
        "budget": {risk: round(0.1 + 0.01 * i, 2) for i, risk in enumerate(RISKS)},
        "bound": dict.fromkeys(RISKS, "betting"),
        "population": dict.fromkeys(RISKS, "queries"),
        "metrics": {risk: KNOWN[risk].of for risk in RISKS}, "radius": 0.01,
        "split": {"search": dict.fromkeys(RISKS, 30), "calibration": dict.fromkeys(RISKS, N), "searched": {}, "queries": dict.fromkeys(RISKS, "c" * 64)},
        "search": {"methods": [METHOD], "trials": 400, "candidates": 10, "sampler": "w" * 40},
        "environment": {"python": "3.11.2", "W" * 40: "w" * 80},
        "after": {"certificate": "d" * 64, "model": "e" * 64, "tasks": ["f" * 64, "0" * 64, "1" * 64], "measured": False},
    }  # fmt: skip


def _params() -> dict[str, Any]:
    return {"lr": "0.000123456", "retain_weight": "5.0", "schedule": SHOUTED, "epochs": 3}


def _trial(number: int) -> Trial:
    status = ("complete", "pruned", "failed", "complete", "interrupted", "out-of-memory")[number % 6]
    done = status == "complete"
    start = f"2026-03-01T{9 + number // 60:02d}:{number % 60:02d}:00Z"
    search = {"forgetting": f"0.{number:04d}", "utility": f"0.{(number * 37) % 997:04d}"}
    return Trial.model_validate(
        {
            "trial": number, "attempt": 1, "config": f"c{number:04d}", "method": METHOD, "params": _params(), "seed": number,
            "status": status, "reason": None if done else "OutOfMemoryError at froc.methods.npo:33", "started": start,
            "ended": start.replace(":00Z", ":55Z"), "steps": 60, "seconds": "55.125", "search": search if done else None,
            "plan": "1" * 64,
        }
    )  # fmt: skip


def _losses(configs: list[str]) -> pl.DataFrame:
    draw = np.random.default_rng(5)
    rows = []
    for config in configs:
        for risk in RISKS:
            for i, loss in enumerate(draw.integers(0, 30, N)):
                query = hashing.sha256_bytes(f"{risk}{i}".encode())[:16]
                rows.append((config, risk, KNOWN[risk].of, "calibration", query, query, int(loss)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
