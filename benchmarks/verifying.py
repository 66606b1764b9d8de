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
from pathlib import Path
from typing import Any

import machine
from synthetic_runs import make_run

from froc import hashing
from froc.audit import bundle as evidence
from froc.audit import keys

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
        sizes = {"100 x 800": (100, 400, 40.0), f"100 x {2 * many}": (100, many, 400.0)}
        unit = machine.unit()
        print(f"unit of work of this machine: {unit:.3f} s")
        for name, (configs, queries, goal) in sizes.items():
            run = make_run(folder / name.replace(" ", ""), configs, queries)
            bundle = evidence.build(run, folder, folder / "key", name=f"b{2 * queries}")
            used = verified(bundle, folder / "key", run / "model")
            rows = 2 * configs * queries
            print(
                f"{name:<22} {rows:>9,} {used['seconds']:>8.2f} {used['mib']:>6.0f} {used['torch']!s:>6}  {used['verdict']}"
            )
            # seconds of fixed work, measured in the same run: a goal in seconds holds on one machine only
            units = used["seconds"] / unit
            holds = units < goal and not used["torch"]
            promises[f"units of work for {rows} rows"] = {"value": round(units, 1), "goal": goal, "holds": holds}
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
