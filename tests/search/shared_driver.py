"""A driver of a shared study that trains nothing; as a program, one in another process, which imports no torch.

It reads the address of a database, says `ready`, and at the next line goes through the study; its trials are printed.
"""

import json
import sys
import time
from typing import Any

from froc.data.task import FORGETTING, UTILITY
from froc.hyperparameters import Range
from froc.search.optuna.shared_study import Shared
from froc.search.run_folder import TrialRecord
from tests.commands import unsynced

SPACE: dict[str, Any] = {"npo": {"lr": Range(0.01, 1.0)}, "rmu": {"c": Range(1.0, 9.0)}}


def study(url: str, plan: str) -> Shared:
    made = Shared(url, plan, SPACE, {FORGETTING: 0.3, UTILITY: 0.3}, sampler="tpe", pruner="none", seed=0)
    made.resume([])
    return made


def work(made: Shared, done: list[TrialRecord], most: int, pause: float = 0.0) -> None:
    while (number := made.claim(0, most)) is not None:
        method, params = made.ask(number)
        means = {FORGETTING: params.get("lr", 0.9), UTILITY: 0.1}
        line = TrialRecord(number, 1, f"c{number:04d}", method, params, 0, "", "", status="complete", search=means)
        time.sleep(pause)
        made.tell(line)
        done.append(line)
    made.close()


def main() -> None:
    """Serve until standard input ends."""
    unsynced()
    for url in iter(sys.stdin.readline, ""):
        done: list[TrialRecord] = []
        made = study(url.strip(), "one-plan")
        print("ready", flush=True)
        sys.stdin.readline()
        work(made, done, 30, 0.1)
        print(json.dumps([line.trial for line in done]), flush=True)
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main()
