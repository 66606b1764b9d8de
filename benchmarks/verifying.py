"""What does it cost to verify? Time and memory of whole processes, and how fast a model folder is hashed.

python benchmarks/verifying.py [--quick] [--hash-gigabytes 2]

Bundles are made of synthetic losses: 100 configurations on 800 queries, and 1,000,000 rows (a tenth of them with --quick).
Each is verified in a process of its own, on one thread; user and system time are those of the process with its imports, so
that other work on the machine does not count. Hashing is compared with SHA-256 over memory, measured in the same run.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from froc import hashing
from froc.audit import bundle as evidence
from froc.audit import keys
from froc.loss_table import SCHEMA
from froc.models import weights_digest
from froc.risk.certificate import Candidate, Claim, certify

BUDGET = {"forgetting": 0.1, "utility": 0.15}
UNITS: dict[str, Literal["query", "group"]] = {"forgetting": "query", "utility": "group"}
BOUND = {"forgetting": "binomial", "utility": "betting"}
METRICS = {"forgetting": "exact_memorization", "utility": "rouge_l"}
CHILD = """
import json, resource, sys, time
from pathlib import Path
from froc.audit import verification
bundle, key = map(Path, sys.argv[1:3])
result = verification.verify(bundle, keys=[key], model=Path(sys.argv[3]))
# not ru_maxrss, which a child inherits
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": used.ru_utime + used.ru_stime, "mib": peak / 1024, "torch": "torch" in sys.modules, "verdict": result.verdict,
}))
"""


@dataclass(frozen=True)
class Risk:
    """What a plan says of a risk."""

    budget: float
    unit: Literal["query", "group"]
    bound: str
    metric: str


def risks_of(attacked: int) -> dict[str, Risk]:
    """Forgetting and utility, and so many risks under attack."""
    plain = {risk: Risk(BUDGET[risk], UNITS[risk], BOUND[risk], METRICS[risk]) for risk in BUDGET}
    return plain | {f"attacked-{i}": Risk(0.15, "query", "betting", "rouge_l@paraphrase") for i in range(attacked)}


def make_run(folder: Path, configs: int, queries: int, weights: int = 1000, trials: int = 0, attacked: int = 0) -> Path:
    """A run folder as a search leaves it: so many candidates on so many queries of each of two risks.

    weights: floats in the model's file. trials: in the log, at least one for each candidate. attacked: further risks.
    """
    (folder / "losses").mkdir(parents=True)
    risks, trials = risks_of(attacked), max(trials, configs)
    budget, units, bounds, metrics = (
        {name: getattr(risk, part) for name, risk in risks.items()} for part in ("budget", "unit", "bound", "metric")
    )
    losses = _losses(configs, queries, risks)
    queries_by_risk = {
        risk: losses.filter(pl.col("risk") == risk)["query"].unique().sort().to_list() for risk in budget
    }
    plan: dict[str, Any] = {
        "format": 2, "created": "2026-03-01T08:00:00Z", "task": {"name": "synthetic", "digest": "a" * 64, "units": units},
        "model": {"name": "synthetic-base", "digest": "b" * 64}, "budget": budget, "confidence": 0.9, "procedure": "weighted-holm",
        "bound": bounds, "population": dict.fromkeys(budget, "queries"), "listed": {}, "weights": {}, "radius": 0.0, "sequential": False,
        "openings": 1, "joint": False, "metrics": metrics, "quantum": 1000, "environment": {"python": sys.version.split()[0]},
        "split": {
            "search": dict.fromkeys(budget, 50), "searched": dict.fromkeys(budget, "e" * 64),
            "calibration": {risk: losses.filter(pl.col("risk") == risk)["query" if unit == "query" else "unit"].n_unique() for risk, unit in units.items()},
            "queries": {risk: hashing.sha256_json(ids) for risk, ids in queries_by_risk.items()},
        },
        "search": {"trials": trials, "candidates": configs},
    }  # fmt: skip
    planned = _json(folder / "plan.json", plan)
    lines = [
        {
            "trial": i, "attempt": 1, "config": f"c{i:04d}", "method": "npo", "params": {"lr": 0.001 / (i + 3)}, "seed": i,
            "status": "complete", "reason": None, "started": "2026-03-01T09:00:00Z", "ended": "2026-03-01T09:01:00Z", "steps": 60,
            "seconds": 29.5, "search": {"forgetting": 0.05, "utility": 0.03}, "plan": planned,
        }
        for i in range(trials)
    ]  # fmt: skip
    (folder / "trials.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    losses.write_parquet(folder / "losses" / "calibration.parquet")
    candidates = [
        Candidate(f"c{i:04d}", "npo", {"lr": 0.001 / (i + 3)}, 1 / (i + 1), hashing.sha256_bytes(b"%d" % i))
        for i in range(configs)
    ]
    chosen = certify(losses, candidates, Claim(budget=budget, bound=bounds, unit=units))["chosen"]
    sealed = weights_digest.of_folder(_model(folder / "model", weights))
    candidates = [
        replace(candidate, weights_digest=sealed) if candidate.config == chosen else candidate
        for candidate in candidates
    ]
    seal = {
        "format": 1, "plan": planned, "trials": trials, "search_losses": "c" * 64, "candidates": [vars(candidate) for candidate in candidates],
        "calibration": plan["split"]["queries"], "base_weights_digest": plan["model"]["digest"],
        "model_files": weights_digest.beside(hashing.sha256_files(folder / "model")),
    }  # fmt: skip
    _json(folder / "seal.json", seal)
    certificate = certify(losses, candidates, Claim(budget=budget, bound=bounds, unit=units))
    _json(folder / "certificate.json", certificate)
    assert certificate["chosen"] is not None
    return folder


def _model(model: Path, weights: int) -> Path:
    (model / "sub").mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [weights], "data_offsets": [0, 4 * weights]}}).encode()
    values = np.random.default_rng(1).standard_normal(weights, dtype=np.float32).tobytes()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + values)
    _json(model / "config.json", {"model_type": "llama", "hidden_size": 6})
    _json(model / "sub" / "tokenizer.json", {"version": "1.0"})
    return model


def _losses(configs: int, queries: int, risks: Mapping[str, Risk]) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    parts = []
    for risk, plan_of_risk in risks.items():
        ids = [hashing.hmac_sha256(b"k", risk, str(i))[:16] for i in range(queries)]
        units = (
            ids
            if plan_of_risk.unit == "query"
            else [hashing.hmac_sha256(b"k", "group", str(i // 4))[:16] for i in range(queries)]
        )
        for config in range(configs):
            if risk == "forgetting":
                values = 1000 * (draw.random(queries) < 0.02 + 0.001 * config)
            else:
                values = np.ceil(1000 * draw.beta(1, 20, queries))
            same = {"config": f"c{config:04d}", "risk": risk, "metric": plan_of_risk.metric, "split": "calibration"}
            part = pl.DataFrame({"unit": units, "query": ids, "loss": values.astype(np.int16)})
            parts.append(part.with_columns(**{k: pl.lit(v) for k, v in same.items()}).select(list(SCHEMA)))
    return pl.concat(parts).cast(dict(SCHEMA))  # type: ignore[arg-type]  # its stubs want one kind of column


def _json(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return hashing.sha256_file(path)


def verified(bundle: Path, key: Path, model: Path) -> dict[str, Any]:
    """What a process used that verified a bundle."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    words = [sys.executable, "-c", CHILD, str(bundle), str(key.with_name(key.name + ".pub")), str(model)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    usage: dict[str, Any] = json.loads(done.stdout)
    return usage


def hashing_speed(folder: Path, gigabytes: float) -> tuple[float, float]:
    """GB per second of CPU time: a model folder of that size, and SHA-256 over memory."""
    block = os.urandom(2**24)
    folder.mkdir()
    count = max(2, round(gigabytes * 1e9 / len(block)))
    for name, blocks in (("a.safetensors", count // 2), ("b.safetensors", count - count // 2)):
        with (folder / name).open("wb") as stream:
            for _ in range(blocks):
                stream.write(block)
    start = time.process_time()
    hashing.sha256_files(folder)
    on_disk = count * len(block) / 1e9 / (time.process_time() - start)
    start = time.process_time()
    for _ in range(count):
        hashlib.sha256(block).digest()
    return on_disk, count * len(block) / 1e9 / (time.process_time() - start)


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hash-gigabytes", type=float)
    arguments = parser.parse_args()
    many = 500 if arguments.quick else 5000
    promises: dict[str, dict[str, Any]] = {}
    print(f"{'bundle':<22} {'rows':>9} {'seconds':>8} {'MiB':>6} {'torch':>6}  verdict")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        keys.keygen(folder / "key", None)
        sizes = {"100 x 800": (100, 400, 3.0), f"100 x {2 * many}": (100, many, 30.0)}
        for name, (configs, queries, goal) in sizes.items():
            run = make_run(folder / name.replace(" ", ""), configs, queries)
            bundle = evidence.build(run, folder, folder / "key", name=f"b{2 * queries}")
            used = verified(bundle, folder / "key", run / "model")
            rows = 2 * configs * queries
            print(
                f"{name:<22} {rows:>9,} {used['seconds']:>8.2f} {used['mib']:>6.0f} {used['torch']!s:>6}  {used['verdict']}"
            )
            holds = used["seconds"] < goal and not used["torch"]
            promises[f"seconds for {rows} rows"] = {"value": round(used["seconds"], 2), "goal": goal, "holds": holds}
            size = (bundle / "losses.csv").stat().st_size / 2**20
            print(f"{'':<22} losses.csv {size:.1f} MiB")
            most = 350 + 8 * size
            promises[f"MiB for {rows} rows"] = {
                "value": round(used["mib"]),
                "goal": round(most),
                "holds": used["mib"] < most,
            }
        ours, plain = hashing_speed(folder / "model", arguments.hash_gigabytes or (0.2 if arguments.quick else 2.0))
    print(f"hashing a model folder: {ours:.2f} GB/s of CPU time; SHA-256 over memory: {plain:.2f} GB/s")
    share = ours / plain
    promises["hashing, share of SHA-256 over memory"] = {"value": round(share, 2), "goal": 0.8, "holds": share >= 0.8}
    print(json.dumps(promises))
    sys.exit(0 if all(promise["holds"] for promise in promises.values()) else 1)


if __name__ == "__main__":
    main()
