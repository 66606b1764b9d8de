"""Further honest bundles: a comparison signed with the run, measuring that stopped early, two signers, losses measured again,

a listed population divided by an auditor's seed, signatures that an authority has stamped, keys of ECDSA.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from froc import hashing
from froc.audit import (
    bundle,
    bundle_files,
    canonical_json,
    documents,
    further_stages,
    keys,
    plan_signing,
    redraw,
    reexecution,
    verification,
    writing,
)
from froc.comparison import document as comparison
from froc.comparison.document import BASE, BEFORE
from froc.loss_table import SCHEMA, place
from froc.plan_identity import stage_seed
from froc.risk.certificate import Candidate
from tests.audit.authority import Authority
from tests.audit.conftest import METRICS, NOW, UNITS, Made, certified

METHODS = {"npo": 60, "rmu": 300}
"""Method -> mean loss, thousandths."""


def text(document: dict[str, Any]) -> str:
    """A document as run folders hold it."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def make_comparison(run: Path, folder: Path) -> Path:
    """A finished comparison about the task and base model of a run."""
    plan = json.loads((run / "plan.json").read_text())
    draw = np.random.default_rng(3)
    points = {f"{m}/c0001@{mix:.4f}": (m, mean, mix) for m, mean in METHODS.items() for mix in (0.5, 1.0)}
    rows = []
    for name, mean in {BASE: 900, **{name: mean for name, (_, mean, _) in points.items()}}.items():
        for risk in METRICS:
            for i in range(120):
                query = hashing.sha256_bytes(f"{risk}{i}".encode())[:16]
                unit = query if UNITS[risk] == "query" else hashing.sha256_bytes(f"{risk}{i // 2}".encode())[:16]
                rows.append((name, risk, METRICS[risk], "calibration", unit, query, int(draw.integers(0, 2) * mean)))
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    plan_of_comparison = {
        "format": 1, "kind": "comparison", "created": plan["created"], "levels": [0.95], "confidence": 0.9, "openings": 1,
        "runs": [{"name": "run", "plan": "0" * 64}], "task": {"name": plan["task"]["name"], "digest": plan["task"]["digest"]},
        "model": plan["model"], "metrics": METRICS, "units": UNITS,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(text(plan_of_comparison))
    mixed, trained = ({m: name for name, (m, _, mix) in points.items() if mix == share} for share in (0.5, 1.0))
    seal = {
        "format": 1, "plan": hashing.sha256_file(folder / "plan.json"),
        "candidates": [{"config": BASE, "method": BASE, "params": {"mix": 0.0}, "weight": 1.0}]
        + [{"config": n, "method": m, "params": {"mix": mix}, "weight": 1.0} for n, (m, _, mix) in points.items()],
        "calibration": {risk: hashing.sha256_json(sorted(set(table.filter(pl.col("risk") == risk)["query"]))) for risk in METRICS},
        "stages": {BEFORE: trained, "0.95": mixed}, "fronts": {m: [n] for m, n in mixed.items()},
        "monotone": {"entries": 2, "bends": 0, "worst": 0.0}, "failed": [],
    }  # fmt: skip
    (folder / "seal.json").write_text(text(seal))
    (folder / "losses").mkdir()
    table.write_parquet(folder / "losses" / "calibration.parquet")
    (folder / "comparison.json").write_text(text(comparison.document(table, seal, plan_of_comparison, 1, 1)))
    return folder


def stop_early(run: Path, units: int = 100) -> None:
    """Turn a finished run into one whose last candidate was measured on the first units of the sealed order alone."""
    losses = pl.read_parquet(run / "losses" / "calibration.parquet")
    seal = json.loads((run / "seal.json").read_text())
    last = seal["candidates"][-1]["config"]
    order = losses.filter(pl.col("config") == last).select("risk", "unit", "query")
    queries = order.filter(pl.col("risk") == "forgetting")["query"].to_list()
    skipped = sorted(queries, key=place)[units:]
    losses = losses.filter(~((pl.col("config") == last) & pl.col("query").is_in(skipped)))
    losses.write_parquet(run / "losses" / "calibration.parquet")

    def planned(plan: dict[str, Any]) -> None:
        plan |= {"sequential": True, "bound": dict.fromkeys(plan["bound"], "betting")}

    replan(run, planned, {**seal, "order": [list(row) for row in order.rows()]}, losses)


def replan(run: Path, change: Callable[[dict[str, Any]], object], seal: dict[str, Any], losses: pl.DataFrame) -> None:
    """Give a run another plan and seal, and the trials and certificate that go with them."""
    plan = json.loads((run / "plan.json").read_text())
    change(plan)
    (run / "plan.json").write_text(text(plan))
    seal["plan"] = hashing.sha256_file(run / "plan.json")
    (run / "seal.json").write_text(text(seal))
    lines = [json.loads(line) | {"plan": seal["plan"]} for line in (run / "trials.jsonl").read_text().splitlines()]
    (run / "trials.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    claim = documents.Plan.model_validate(plan).claim
    candidates = [Candidate(**candidate) for candidate in seal["candidates"]]
    base = pl.read_parquet(run / "losses" / "base.parquet") if "control" in plan else None
    certificate = certified(losses, candidates, claim, base, documents.Seal.model_validate(seal).units)
    (run / "certificate.json").write_text(text(certificate))


def without_control(run: Path) -> None:
    """Turn a finished run into one of an older version, which did not measure the base model and bound no weights."""
    losses = pl.read_parquet(run / "losses" / "calibration.parquet")
    seal = json.loads((run / "seal.json").read_text())
    del seal["base_weights_digest"], seal["model_files"]
    for candidate in seal["candidates"]:
        del candidate["weights_digest"]
    replan(run, lambda plan: plan.pop("control"), seal, losses)


def list_forgetting(run: Path, first: bool) -> None:
    """Turn a finished run into one about listed forget queries, divided by an auditor's seed: the first units by id are the
    search's, or, where somebody picked them, the last."""
    losses = pl.read_parquet(run / "losses" / "calibration.parquet")
    seal = json.loads((run / "seal.json").read_text())
    queries = sorted(set(losses.filter(pl.col("risk") == "forgetting")["query"].to_list()))
    searched, rest = (queries[:48], queries[48:]) if first else (queries[-48:], queries[:-48])
    split = pl.when(pl.col("query").is_in(searched)).then(pl.lit("search")).otherwise(pl.col("split"))
    losses = losses.with_columns(split=split)
    losses.write_parquet(run / "losses" / "calibration.parquet")
    pl.read_parquet(run / "losses" / "base.parquet").with_columns(split=split).write_parquet(
        run / "losses" / "base.parquet"
    )

    def planned(plan: dict[str, Any]) -> None:
        plan["task"] |= {"seed_from": "auditor", "split_seed": 5}
        for name, value in (("population", "census"), ("bound", "census"), ("listed", len(queries))):
            plan[name] = {**plan[name], "forgetting": value}
        parts: dict[str, str | int] = {"searched": hashing.sha256_json(searched), "queries": hashing.sha256_json(rest)}
        parts |= {"search": len(searched), "calibration": len(rest)}
        for name, part in parts.items():
            plan["split"][name] = {**plan["split"][name], "forgetting": part}

    seal["calibration"] = {**seal["calibration"], "forgetting": hashing.sha256_json(rest)}
    replan(run, planned, seal, losses)


def measured_again(
    made: Made, change: Callable[[dict[str, Any]], object] = lambda statement: None, *, key: str = "key", payload: str = "",
    config: str | None = None, model: bool = False,
) -> None:  # fmt: skip
    """Sign into a bundle that 299 losses of each configuration and risk were measured again and none differed; change: of what is said, before signing.

    model: the signed model was measured, too, on 99 of its own.
    """
    losses = (made.bundle / "losses.csv").read_bytes()
    units = json.loads((made.bundle / "plan.json").read_text())["task"]["units"]
    by_unit = frozenset(risk for risk, unit in units.items() if unit == "group")
    scope = redraw.Scope(None if config is None else ("base", config), by_unit)
    statement = reexecution.document(
        losses, 7, 299, scope, {}, signed=writing.stamped(NOW), role="engineer",
        keyid=keys.load_public(made.public).keyid, harness={"name": "froc", "version": "0.1.0"},
        environment={"python": "3.11.2"},
    )  # fmt: skip
    if model:
        chosen = made.read()["predicate"]["model"]
        statement["model"] = reexecution.of_model(
            losses, 7, chosen["config"], by_unit, chosen["weightsDigest"]["value"], False, {}, 99
        )
    change(statement)
    signed, _ = keys.verify((made.bundle / "report.dsse.json").read_bytes(), [keys.load_public(made.public)])
    data = reexecution.sign(
        payload or hashing.sha256_bytes(signed), statement, keys.load_signer(made.key.with_name(key))
    )
    (made.bundle / reexecution.NAME).write_bytes(data)


PLANNED = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
"""When the plan of the stamped run was: after it was written, before its first trial."""
CLOCKS: dict[str, Authority] = {}
"""`trusted`, whom trust files pin, and `other`."""


def token(made: Made, at: datetime, clock: str = "trusted", over: bytes | None = None, keyid: str = "") -> None:
    """Put a time stamp of the report's (first) signature into a bundle, or of something else."""
    signatures = keys.signatures((made.bundle / "report.dsse.json").read_bytes())
    first, signature = next(iter(signatures.items()))
    name = bundle_files.report_token(keyid or first)
    (made.bundle / name).write_bytes(CLOCKS[clock].stamp(over or signature, at))


def stamped(run: Path, key: Path) -> None:
    """Sign a run's plan and have it stamped."""
    signed = plan_signing.PlanSigner(run, key).sign(PLANNED - timedelta(minutes=1))
    (signature,) = keys.signatures(signed.read_bytes()).values()
    (run / bundle_files.PLAN_TOKEN).write_bytes(CLOCKS["trusted"].stamp(signature, PLANNED))


PICKED: dict[str, Path] = {}
"""`run`: a listed run whose search rows were picked; its bundle cannot be built while the draw is checked."""


def originals(good: Made, failing: Made, short: Made, folder: Path) -> dict[str, Made]:
    """Bundles that verify, by name; cases are changes of one of them."""
    key, made = good.key, {"good": good, "failing": failing, "short": short}

    def built(name: str, run: Path, **more: Any) -> Made:
        return Made(bundle.build(run, folder, key, name=name, now=NOW, **more), run, key)

    compared = make_comparison(good.run, folder / "comparison")
    made["compared"] = built("compared", good.run, comparison=compared)
    early = Path(shutil.copytree(good.run, folder / "early"))
    stop_early(early)
    made["early"] = built("early", early)
    older = Path(shutil.copytree(good.run, folder / "older"))
    without_control(older)
    made["older"] = built("older", older)
    small = Path(shutil.copytree(good.run, folder / "small"))
    stop_early(small, 49)
    made["small"] = built("small", small, small=True)
    continued = Path(shutil.copytree(good.run, folder / "continued"))
    continue_run(continued)
    made["continued"] = built("continued", continued)
    two_signers = Made(Path(shutil.copytree(good.bundle, folder / f"both{verification.SUFFIX}")), good.run, key)
    signers = [keys.load_signer(key), keys.load_signer(key.with_name("other"))]
    (two_signers.bundle / "report.dsse.json").write_bytes(
        keys.sign(canonical_json.compact(two_signers.read()), signers)
    )
    made["both"] = two_signers
    again = Made(Path(shutil.copytree(good.bundle, folder / f"again{verification.SUFFIX}")), good.run, key)
    measured_again(again, model=True)
    made["again"] = again
    for name in ("curve", "wide"):
        curve_key = key.with_name(name)
        made[name] = Made(bundle.build(good.run, folder, curve_key, name=name, now=NOW), good.run, curve_key)
    for clock in ("trusted", "other"):
        CLOCKS[clock] = Authority(folder / clock, PLANNED - timedelta(days=400))
    run = Path(shutil.copytree(good.run, folder / "stamped"))
    stamped(run, key)
    made["stamped"] = built("stamped", run)
    token(made["stamped"], NOW)
    for name, first in (("drawn", True), ("picked", False)):
        run = Path(shutil.copytree(good.run, folder / name))
        list_forgetting(run, first)
        if first:
            made[name] = built(name, run)
        else:
            PICKED["run"] = run
    return made


def continue_run(run: Path) -> None:
    """Turn a finished run into one that was continued twice with fresh queries, the second time about forgetting alone."""
    losses = pl.read_parquet(run / "losses" / "calibration.parquet")
    base = pl.read_parquet(run / "losses" / "base.parquet")
    seal = json.loads((run / "seal.json").read_text())

    def planned(plan: dict[str, Any]) -> None:
        plan |= {"extendable": True, "levels": "own", "bound": dict.fromkeys(plan["bound"], "betting")}

    replan(run, planned, seal, losses)
    label = json.loads((run / "plan.json").read_text())["split"].get("label")
    before, entries, tables = hashing.sha256_file(run / "seal.json"), list[dict[str, Any]](), list[pl.DataFrame]()
    for number, risks in ((2, list(METRICS)), (3, ["forgetting"])):
        units = sorted({*losses["unit"]}, key=lambda unit: hashing.sha256_bytes(f"{number}{unit}".encode()))[::2]
        names = {
            old: hashing.sha256_bytes(f"{number} {old}".encode())[:16] for old in {*losses["unit"], *losses["query"]}
        }
        table = (
            pl.concat([losses, base])
            .filter(pl.col("unit").is_in(units), pl.col("risk").is_in(risks), pl.col("split") == "calibration")
            .with_columns(pl.col("unit", "query").replace_strict(names), split=pl.lit(f"calibration-{number}"))
        )
        table.write_parquet(run / "losses" / f"stage-{number}.parquet")
        tables.append(table)
        of_risk = {risk: table.filter(pl.col("risk") == risk) for risk in risks}
        entries.append(
            {
                "number": number, "created": f"2026-03-01T1{number - 2}:00:00Z", "before": before, "rows": f"{number}" * 64,
                "seed": stage_seed(label, number, f"{number}" * 64),
                "queries": {risk: hashing.sha256_json(sorted({*rows["query"]})) for risk, rows in of_risk.items()},
                "units": {risk: len({*rows["query" if UNITS[risk] == "query" else "unit"]}) for risk, rows in of_risk.items()},
            }
        )  # fmt: skip
        before = hashing.sha256_json(entries[-1])
    (run / "stages.json").write_text(text({"format": 1, "stages": entries}))
    claim = documents.Plan.model_validate(json.loads((run / "plan.json").read_text())).claim
    stages = tuple(further_stages.SealedStage.model_validate(entry).of_claim for entry in entries)
    measured = pl.concat([losses, base, *tables])
    candidates = [Candidate(**candidate) for candidate in json.loads((run / "seal.json").read_text())["candidates"]]
    of_base = pl.col("config") == "base"
    certificate = certified(
        measured.filter(~of_base), candidates, replace(claim, stages=stages), measured.filter(of_base)
    )
    (run / "certificate.json").write_text(text(certificate))
