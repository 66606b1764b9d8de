"""Do other versions of Python come to the same bytes?

python benchmarks/pythons.py [--quick] [--with PYTHON ...]

Each interpreter verifies a bundle that this one has signed, signs the same run again with the same key and date (Ed25519
signatures are a function of both), and certifies random tables: every file and every certificate must have the same bytes.
An interpreter needs polars, numpy, scipy, mapie, pydantic, jinja2 and securesystemslib[crypto]; no torch. Without --with it
is this interpreter alone, twice, with two different hash seeds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synthetic_runs import make_run

from froc.audit import bundle as evidence
from froc.audit import keys

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import hashlib, json, platform, sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
import numpy as np
from froc.audit import bundle as evidence, canonical_json, verification
from froc import hashing
from froc.risk.certificate import Candidate, Claim, decide
run, bundle, key, out, tables = map(Path, sys.argv[1:6])
now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
result = verification.verify(bundle, keys=[key.with_name("key.pub")], model=run / "model", now=now)
again = evidence.build(run, out, key, name="bundle", now=now)
draw = np.random.default_rng(0)
whole = hashlib.sha256()
for _ in range(int(str(tables))):
    m, n, mean = int(draw.integers(1, 12)), int(draw.integers(20, 500)), float(draw.uniform(0.005, 0.2))
    losses = {
        "forgetting": 1000 * (draw.random((m, n)) < mean).astype(np.int16),
        "utility": (draw.integers(0, 1001, (m, n)) * (draw.random((m, n)) < 2 * mean)).astype(np.int16),
    }
    claim = Claim(
        {"forgetting": 0.1, "utility": 0.15}, {"forgetting": "binomial", "utility": str(draw.choice(["betting", "hoeffding_bentkus"]))},
        {"forgetting": "query", "utility": "query"}, radius=float(draw.choice([0.0, 0.05])),
    )
    candidates = [Candidate(f"c{i:04d}", "npo", {}, 1 / (i + 1)) for i in range(m)]
    whole.update(canonical_json.compact(canonical_json.exact(decide(losses, candidates, claim))))
print(json.dumps({
    "python": platform.python_version(), "versions": {n: version(n) for n in ("numpy", "scipy", "polars", "mapie", "pydantic", "cryptography")},
    "torch": "torch" in sys.modules, "verdict": result.verdict, "files": hashing.sha256_files(again), "certificates": whole.hexdigest(),
}))
"""


def ran(python: str, words: list[str], seed: str) -> dict[str, Any]:
    """What an interpreter came to."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, "-c", CHILD, *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--with", dest="others", nargs="*", default=[])
    arguments = parser.parse_args()
    tables = 50 if arguments.quick else 500
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        keys.keygen(folder / "key", None)
        run = make_run(folder / "run", 20, 400)
        bundle = evidence.build(run, folder, folder / "key", name="bundle", now=NOW)
        made = [
            ran(python, [str(run), str(bundle), str(folder / "key"), str(folder / f"out{i}"), str(tables)], str(i + 1))
            for i, python in enumerate([sys.executable, *(arguments.others or [sys.executable])])
        ]
    print(
        f"{'python':<8} {'torch':<6} {'verdict':<8} {'report.dsse.json':<17} {'report.html':<17} {tables} certificates"
    )
    for result in made:
        kept = result["files"]
        print(
            f"{result['python']:<8} {result['torch']!s:<6} {result['verdict']:<8} {kept['report.dsse.json'][:16]:<17} {kept['report.html'][:16]:<17} "
            f"{result['certificates'][:16]}  {', '.join(f'{n} {v}' for n, v in result['versions'].items())}"
        )
    files = len({json.dumps(result["files"], sort_keys=True) for result in made})
    certificates = len({result["certificates"] for result in made})
    verified = sum(result["verdict"] == "PASS" for result in made)
    promises = {
        "interpreters that verify it": {"value": verified, "goal": len(made), "holds": verified == len(made)},
        "different bundles": {"value": files, "goal": 1, "holds": files == 1},
        "different certificates": {"value": certificates, "goal": 1, "holds": certificates == 1},
    }
    print(json.dumps(promises))
    sys.exit(0 if all(result["holds"] for result in promises.values()) else 1)


if __name__ == "__main__":
    main()
