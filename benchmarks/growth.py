"""Does the time to verify grow with the bundle, and no faster?

    python benchmarks/growth.py [--quick]

Rows, candidates, risks, trials and time-stamp tokens are doubled one after the other; CPU seconds of the fastest of three
verifications in this process. Growth is the slope of log(seconds above the smallest bundle's share of fixed cost) over log(size):
1 is linear. Sorting and certificates that list every candidate and risk add a little; 1.35 is the limit, and 2 would be quadratic.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from synthetic_runs import make_run

from froc.audit import bundle as evidence
from froc.audit import bundle_files, verification
from froc.audit import keys as signing

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LIMIT = 1.35
"""Of the slope between the two largest sizes."""


def seconds(bundle: Path, keys: list[Path]) -> float:
    """CPU seconds to verify, the fastest of three."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        verification.verify(bundle, keys=keys, now=NOW)
        spent.append(time.process_time() - start)
    return min(spent)


def bundle_of(folder: Path, name: str, size: int, **more: int) -> tuple[Path, list[Path]]:
    """A signed bundle about a run of that shape, and the key to verify it with."""
    key = folder / "key"
    run = make_run(folder / f"run-{name}-{size}", **{"configs": 10, "queries": 200, **more})
    return evidence.build(run, folder, key, name=f"{name}-{size}", now=NOW), [key.with_name("key.pub")]


def with_tokens(folder: Path, size: int) -> tuple[Path, list[Path]]:
    """A bundle that many have signed, with a token for each signature; nobody is pinned, so that tokens are only counted."""
    bundle, keys = bundle_of(folder, "tokens", size)
    body, _ = signing.verify((bundle / "report.dsse.json").read_bytes(), [signing.load_public(keys[0])])
    signers = [signing.load_signer(folder / "key")]
    for number in range(size - 1):
        signing.keygen(folder / f"signer-{size}-{number}", None)
        signers.append(signing.load_signer(folder / f"signer-{size}-{number}"))
    (bundle / "report.dsse.json").write_bytes(signing.sign(body, signers))
    for signer in signers:
        (bundle / bundle_files.report_token(signer.public_key.keyid)).write_bytes(b"token" * 400)
    return bundle, keys


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    factor = 1 if parser.parse_args().quick else 4
    promises = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        signing.keygen(folder / "key", None)
        shapes: dict[str, tuple[int, Callable[[int], tuple[Path, list[Path]]]]] = {
            "rows": (4000 * factor, lambda n: bundle_of(folder, "rows", n, queries=n // 20)),
            "candidates": (25 * factor, lambda n: bundle_of(folder, "candidates", n, configs=n)),
            "risks": (3 * factor, lambda n: bundle_of(folder, "risks", n, attacked=n - 2)),
            "trials": (500 * factor, lambda n: bundle_of(folder, "trials", n, trials=n)),
            "tokens": (2, lambda n: with_tokens(folder, n)),
        }
        print(f"{'what':<12} {'sizes':<24} {'CPU seconds':<28} slope")
        for name, (least, made) in shapes.items():
            sizes = [least * 2**i for i in range(4)]
            spent = [seconds(*made(size)) for size in sizes]
            slope = float(np.log(spent[-1] / spent[-2]) / np.log(2))
            print(f"{name:<12} {' '.join(map(str, sizes)):<24} {' '.join(f'{s:.3f}' for s in spent):<28} {slope:.2f}")
            promises[f"slope over {name}"] = {"value": round(slope, 2), "goal": LIMIT, "holds": slope <= LIMIT}
    print(json.dumps(promises))
    sys.exit(0 if all(promise["holds"] for promise in promises.values()) else 1)


if __name__ == "__main__":
    main()
