"""Each method on a model that two processes divide, beside one process: how far their ends lie apart, and what a process holds.

    python benchmarks/sharded.py [METHOD ...]

apart: distance of the ends, as a share of the way from the base model; 1e-6 is rounding. held: share of the weights, and so of the base copy,
gradients and moments, in the first of the two processes. On the CPU (gloo), the small test model, two epochs.
"""

import multiprocessing
import pickle
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from several_devices import SMALL
from torch.distributed.tensor import DTensor

from froc.data.splits import split
from froc.data.tasks import embedded_text
from froc.models import sharding
from froc.models.base import load
from froc.models.compute import Engine
from froc.plugins import find, make, names
from froc.search.executors.sharded import UNSUPPORTED
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method, wrappers

COUNT = 2
ROWS = 32
"""Of the forget and of the retain rows."""
Ends = dict[str, dict[str, torch.Tensor] | str]


def ends(methods: list[str]) -> Ends:
    """Method -> its change of every weight, or why there is none."""
    view, _ = split(embedded_text.task(), 0.2)
    view = replace(view, forget=view.forget[:ROWS], retain=view.retain[:ROWS])
    base = load(str(SMALL), device="cpu")
    start = {name: sharding.whole(value).clone() for name, value in base.trainable.base_values().items()}
    result: Ends = {}
    for name in methods:
        fields = find(Method, name).__dataclass_fields__
        options = {key: value for key, value in {"lr": 2e-3, "epochs": 2}.items() if key in fields and name != "rmu"}
        base.restore()
        try:
            reference = BaseStatistics(base, TrainingRows.of(view, base, 0))
            unlearn(base, make(Method, name, options), reference, batch=16, seed=0, engine=Engine())
            result[name] = {key: value - start[key] for key, value in base.trainable.snapshot().items()}
        except Exception as error:  # what is shown is which methods cannot be divided
            result[name] = f"{type(error).__name__}: {str(error)[:80]}"
    if sharding.joined():
        weights = list(base.trainable.parameters().values())
        held = sum(value.to_local().nbytes for value in weights if isinstance(value, DTensor))
        result["held"] = f"{held / sum(value.nbytes for value in start.values()):.3f}"
    return result


def process(rank: int, meeting: str, methods: list[str], results: Any) -> None:
    """One of the group."""
    sharding.join(rank, COUNT, Path(meeting), "cpu")
    made = ends(methods)
    if rank == 0:
        # as bytes: tensors would be handed over through this process, which ends
        results.send_bytes(
            pickle.dumps({name: value if isinstance(value, str) else _arrays(value) for name, value in made.items()})
        )


def _arrays(change: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in change.items()}


def main() -> None:
    """Print a line per method."""
    trained = [name for name in names(Method) if name not in (*wrappers(), "retrain", "none")]
    methods = sys.argv[1:] or [*trained, *(f"{name}(npo)" for name in wrappers())]
    alone, context = ends(methods), multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        group = [context.Process(target=process, args=(rank, meeting, methods, sender)) for rank in range(COUNT)]
        for member in group:
            member.start()
        received = pickle.loads(receiver.recv_bytes())
        for member in group:
            member.join()
    print("held", received["held"])
    for name in methods:
        ours, theirs = received[name], alone[name]
        refused = " (refused)" if set(name.rstrip(")").split("(")) & UNSUPPORTED else ""
        if isinstance(ours, str) or isinstance(theirs, str):
            print(f"{name}{refused}: {ours if isinstance(ours, str) else theirs}")
            continue
        way = sum(float(value.square().sum()) for value in theirs.values()) ** 0.5
        apart = sum(float((torch.from_numpy(ours[key]) - v).square().sum()) for key, v in theirs.items()) ** 0.5
        print(f"{name}{refused}: apart {apart / max(way, 1e-12):.1e}")


if __name__ == "__main__":
    main()
