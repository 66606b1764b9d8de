"""What froc does on a real GPU: one script, at most nine minutes, models made on the spot, nothing downloaded.

    PYTHONPATH=. python benchmarks/gpu.py --out FOLDER

Every stage has its own time limit and writes one JSON line at once, to standard output and to FOLDER/gpu.jsonl: its figures, `passed` (whether
its goal is met; null where it has none) and `error`. The last line names the stages that were not run. `--quick` runs all of them at toy sizes, also on the CPU
or on the pretend device of tests/pretend_cuda. `docs/gpu.md` has the goals.
"""

import argparse
import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gpu_large
import gpu_small
import torch
from gpu_models import GPU, QUICK, SO_FAR, Sizes

from froc.models.determinism import SIZE, WORKSPACE

STAGES: dict[str, tuple[Any, int]] = {
    "code paths": (gpu_small.code_paths, 150),
    "waits": (gpu_small.waits, 20),
    "bits": (gpu_small.bits, 30),
    "adapters": (gpu_large.adapters, 20),
    "1B full": (gpu_large.full_1b, 70),
    "1B sweep": (gpu_large.sweep_1b, 60),
    "8B LoRA": (gpu_large.lora_8b, 80),
    "generation": (gpu_large.generation, 30),
    "attacks": (gpu_large.attacks, 60),
    "8B full": (gpu_large.full_8b, 70),
    "out of memory": (gpu_large.out_of_memory, 40),
}
"""Name -> what it does, and its limit in seconds; what matters most comes first."""
LEAST = 5
"""Seconds without which a stage is not begun."""


class OverdueError(BaseException):  # trials turn every other error into an outcome, and would go on
    """A stage has taken all its time."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """OverdueError after so many seconds."""

    def ring(*_: object) -> None:
        raise OverdueError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def done(name: str, sizes: Sizes, seconds: float) -> dict[str, Any]:
    """A stage's line."""
    begin = time.monotonic()
    line: dict[str, Any] = {"stage": name, "passed": None}
    SO_FAR.clear()
    try:
        with limited(seconds):
            line |= STAGES[name][0](sizes)
    except (Exception, OverdueError) as error:  # the next stage is run whatever happens to this one
        place = traceback.extract_tb(error.__traceback__)[-1]
        line |= SO_FAR | {
            "passed": False,
            "error": f"{type(error).__name__}: {error}"[:400],
            "at": f"{place.filename}:{place.lineno}",
        }
    return line | {"seconds": round(time.monotonic() - begin, 1)}


def clean(sizes: Sizes) -> None:
    """Give all memory back."""
    gc.collect()
    if sizes.on_gpu:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def main() -> int:
    """Run the stages; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    parser.add_argument("--out", type=Path, help="folder of gpu.jsonl and the profile")
    parser.add_argument("--stages", default=",".join(STAGES), help="names, separated by commas")
    parser.add_argument("--seconds", type=float, default=540.0, help="of all stages")
    options = parser.parse_args()
    if unknown := set(options.stages.split(",")) - set(STAGES):
        parser.error(f"no stage is called {', '.join(sorted(unknown))}; there are: {', '.join(STAGES)}")
    # cuBLAS reads it at its first use
    os.environ.setdefault(WORKSPACE, SIZE)
    sizes = (QUICK if options.quick else GPU).at(options.out)
    wanted = [name for name in STAGES if name in options.stages.split(",")]
    end, missing, failed = time.monotonic() + options.seconds, [], []
    for name in wanted:
        left = end - time.monotonic()
        if left < LEAST:
            missing.append(name)
            continue
        line = done(name, sizes, min(STAGES[name][1], left))
        failed += [name] if line["passed"] is False else []
        say(line, options.out)
        clean(sizes)
    say({"stage": "end", "device": sizes.device_name, "torch": torch.__version__, "failed": failed, "missing": missing}, options.out)  # fmt: skip
    return 1 if failed else 0


def say(line: dict[str, Any], out: Path | None) -> None:
    """Print a line and keep it."""
    text = json.dumps(line)
    print(text, flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with (out / "gpu.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
