"""Does a search survive whatever happens to it? Faults at random moments, the same command again and again, until it ends.

python benchmarks/faults.py [--quick] [--trials 300]

Two worker processes; every few trials one of: a worker killed or frozen, the driver killed, interrupted or terminated, the
disk full (a small file system mounted for it: needs root). Trials that diverge come from the search space, and one method
of this file runs out of memory now and then. Compared with an undisturbed run of the same plan.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINISHED = ("complete", "pruned", "diverged", "out-of-memory", "timed-out", "failed")
PLUGIN = """
from dataclasses import dataclass

import torch

from froc.methods.grad_diff import GradDiff


@dataclass(frozen=True)
class Hungry(GradDiff):
    "GradDiff, whose memory runs out in a third of the configurations."

    def phases(self, facts):
        if facts.seed % 3 == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().phases(facts)
"""
KINDS = ("kill worker", "kill driver", "terminate driver", "interrupt driver", "freeze worker", "fill disk")
CODES = {"kill driver": (-9,), "terminate driver": (130,), "interrupt driver": (130,), "fill disk": (2,)}
LIMIT = 3600.0


def command(out: Path, trials: int) -> list[str]:
    """The search that is disturbed. Learning rates of the far end diverge."""
    return [
        sys.executable, "-m", "froc", "search", "--budget", "0.2", "--trials", str(trials), "--methods", "npo,simnpo,hungry",
        "--space", "lr=1e-4:1e6", "--space", "epochs=1:3", "--no-sweep", "--sampler", "random", "--workers", "2", "--parallel", "3",
        "--out", str(out), "--quiet",
    ]  # fmt: skip


@dataclass
class Seen:
    """What a run's files showed over time: finished lines by trial, seals, and resident memory by number of trials."""

    finished: dict[int, str] = field(default_factory=dict)
    changed: int = 0
    doubled: int = 0
    seals: set[bytes] = field(default_factory=set)
    memory: list[tuple[int, int, int]] = field(default_factory=list)

    def look(self, out: Path, driver: int) -> int:
        """Read the log; return how many trials have finished."""
        lines = log(out)
        finished: dict[int, str] = {}
        for line in lines:
            if line["status"] in FINISHED:
                self.doubled += line["trial"] in finished
                finished[line["trial"]] = json.dumps(line, sort_keys=True)
        self.changed += sum(finished.get(number) != text for number, text in self.finished.items())
        self.finished = finished
        with contextlib.suppress(OSError):
            self.seals.add((out / "seal.json").read_bytes())
        workers = [resident(pid) for pid in children(driver)]
        if len(workers) == 2 and resident(driver):
            self.memory.append((len(finished), resident(driver), max(workers)))
        return len(finished)

    def growth(self, trials: int) -> tuple[float, float]:
        """Largest memory of driver and workers in the last third of the trials over that in the middle one."""
        early = [sample for sample in self.memory if trials / 3 <= sample[0] < 2 * trials / 3]
        late = [sample for sample in self.memory if sample[0] >= 2 * trials / 3]
        driver, workers = (max(sample[k] for sample in late) / max(sample[k] for sample in early) for k in (1, 2))
        return driver, workers


def log(out: Path) -> list[dict[str, Any]]:
    """The run's log of started trials."""
    try:
        return [json.loads(line) for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []


def came_to(line: dict[str, Any]) -> tuple[Any, ...]:
    """What of a finished line must not hang on what happened to the run."""
    return tuple(line[name] for name in ("config", "params", "seed", "status", "steps", "rungs", "search"))


def children(pid: int) -> list[int]:
    """The worker processes of a driver."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid and b"spawn_main" in (
                path.with_name("cmdline").read_bytes()
            ):
                pids.append(int(path.parent.name))
    return sorted(pids)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def plugin(folder: Path) -> str:
    """Install the hungry method for the runs; the value of PYTHONPATH that shows it to them."""
    about = folder / "hungry-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "hungry.py").write_text(PLUGIN, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hungry\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[froc.methods]\nhungry = hungry:Hungry\n", encoding="utf-8")
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own for the run; False where none may be mounted."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)], check=False, capture_output=True
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=False)


def strike(kind: str, driver: subprocess.Popen[bytes], disk: Path, draw: random.Random) -> None:
    """Do it."""
    workers = children(driver.pid)
    if kind in ("kill worker", "freeze worker") and workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(workers), signal.SIGKILL if kind == "kill worker" else signal.SIGSTOP)
    elif kind == "fill disk":
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
    elif kind.endswith("driver"):
        sent = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}[kind.split()[0]]
        driver.send_signal(sent)


def disturbed(
    start: Callable[[], subprocess.Popen[bytes]], out: Path, disk: Path, trials: int, every: int, kinds: list[str]
) -> tuple[Seen, list[tuple[str, int | None]], int]:
    """Run to the end under fire; what was seen, the faults with the exit codes they led to, and the last exit code."""
    draw = random.Random(0)
    seen, faults = Seen(), list[tuple[str, int | None]]()
    driver, target = start(), draw.randint(1, 2 * every)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        time.sleep(0.1)
        finished = seen.look(out, driver.pid)
        if driver.poll() is not None:
            return seen, faults, driver.returncode
        # what is left after the last fault must be able to end
        if finished < target or target > trials - 3:
            continue
        target = finished + draw.randint(2, 2 * every)
        # each kind in turn, so that even a short run has met all
        kind = kinds[len(faults) % len(kinds)]
        time.sleep(draw.uniform(0.0, 0.5))
        strike(kind, driver, disk, draw)
        code = None
        if kind in CODES:
            code = driver.wait(120)
            (disk / "filler").unlink(missing_ok=True)
            driver = start()
        faults.append((kind, code))
    driver.kill()
    return seen, faults, driver.wait()


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trials", type=int)
    arguments = parser.parse_args()
    trials = arguments.trials or (30 if arguments.quick else 300)
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", 96) as mounted:
        disk = Path(folder) / "disk"
        path = plugin(Path(folder) / "plugin")
        calm, rough = Path(folder) / "calm", disk / "rough"

        def start(out: Path) -> Callable[[], subprocess.Popen[bytes]]:
            environment = {
                "FROC_STATE": str(Path(folder) / f"state-{out.name}"), "FROC_SILENCE": "8", "OMP_NUM_THREADS": "1", "PYTHONPATH": path,
            }  # fmt: skip
            return lambda: subprocess.Popen(command(out, trials), env=os.environ | environment, stderr=subprocess.PIPE)

        begin = time.monotonic()
        plain = Seen()
        first = start(calm)()
        while first.poll() is None:
            time.sleep(0.2)
            plain.look(calm, first.pid)
        whole = time.monotonic() - begin
        print(
            f"undisturbed: exit {first.returncode}, {whole:.0f} s, {dict(Counter(line['status'] for line in log(calm)))}"
        )
        kinds = [kind for kind in KINDS if mounted or kind != "fill disk"]
        if not mounted:
            print("the disk is not filled: no file system may be mounted here")
        seen, faults, code = disturbed(start(rough), rough, disk, trials, 3 if arguments.quick else 5, kinds)
        print(f"{'fault':<18} {'times':>5}  exit codes")
        for kind in kinds:
            codes = Counter(code for name, code in faults if name == kind)
            print(
                f"{kind:<18} {sum(codes.values()):>5}  {', '.join(f'{c} x {n}' for c, n in codes.items() if c is not None)}"
            )
        lines = log(rough)
        print(f"attempts {len(lines)}, {dict(Counter(line['status'] for line in lines))}")
        same = (calm / "certificate.json").read_bytes() == (rough / "certificate.json").read_bytes()
        lost = trials - len(seen.finished)
        differing = sum(came_to(line) != came_to(json.loads(seen.finished[line["trial"]])) for line in log(calm))
        wrong = sum(code is not None and code not in CODES[kind] for kind, code in faults)
        open_ = sum(line["status"] not in (*FINISHED, "interrupted") for line in lines)
        driver, worker = plain.growth(trials)
    promises: dict[str, dict[str, Any]] = {
        "same certificate after faults": {"value": same, "goal": True, "holds": same and code == first.returncode},
        "trials that came to something else": {"value": differing, "goal": 0, "holds": differing == 0},
        "trials lost": {"value": lost, "goal": 0, "holds": lost == 0},
        "trials doubled": {"value": seen.doubled, "goal": 0, "holds": seen.doubled == 0},
        "finished lines changed": {"value": seen.changed, "goal": 0, "holds": seen.changed == 0},
        "seals written": {"value": len(seen.seals), "goal": 1, "holds": len(seen.seals) == 1},
        "attempts without an end": {"value": open_, "goal": 0, "holds": open_ == 0},
        "faults answered with another exit code": {"value": wrong, "goal": 0, "holds": wrong == 0},
        "driver's memory, last third over middle": {"value": round(driver, 3), "goal": 1.1, "holds": driver <= 1.1},
        "workers' memory, last third over middle": {"value": round(worker, 3), "goal": 1.1, "holds": worker <= 1.1},
    }
    print(json.dumps(promises))
    sys.exit(0 if all(promise["holds"] for promise in promises.values()) else 1)


if __name__ == "__main__":
    main()
