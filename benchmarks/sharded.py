"""Each method, attack and metric on a model that two processes divide, beside one process: how far they lie apart, and what a process holds.

    python benchmarks/sharded.py [--train full|lora:rank=4] [--optimizer adamw|adamw8bit] [METHOD | METRIC@ATTACK | METRIC ...]

apart: of a method, the distance of the ends, as a share of the way from the base model; 1e-6 is rounding. Of a metric, the largest difference
of a query's loss in thousandths, on the ends of `grad_diff`. held: share of the weights, and so of the base copy, gradients and moments,
in the first of the two processes. On the CPU (gloo), the small test model, two epochs.
"""

import argparse
import multiprocessing
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_small import NEEDY, attacked

from froc.data.splits import split
from froc.data.tasks import embedded_text
from froc.measuring.measurement import measurement
from froc.measuring.metric import Metric
from froc.measuring.query_losses import measured, probes
from froc.models import process_group
from froc.models.base import Base, load
from froc.models.compute import Engine
from froc.plugins import find, make, names
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method, wrappers
from tests.small_model import SMALL, TRAINED

COUNT = 2
ROWS = 32
"""Of the forget and of the retain rows."""
QUERIES = 16
Ends = dict[str, Any]


def every_method() -> list[str]:
    """All that train, and each wrapper around one."""
    return [*(name for name in names(Method) if name not in (*wrappers(), "retrain", "none")), *(f"{name}(npo)" for name in wrappers())]  # fmt: skip


def every_look() -> list[str]:
    """Metrics by themselves, and one under each attack."""
    return [name for name in names(Metric) if name not in NEEDY or name == "membership"] + attacked()


def ends(wanted: Sequence[str], train: str, optimizer: str = "adamw", rows: int = ROWS, queries: int = QUERIES) -> Ends:
    """Name -> change of every weight, or losses, or why there are none."""
    base = load(str(TRAINED), device="cpu", train=train)
    base.restore(0)
    start = {name: value.clone() for name, value in base.trainable.snapshot().items()}
    result: Ends = {}
    for name in wanted:
        try:
            if name in every_method():
                trained(base, name, optimizer, rows)
                result[name] = {key: value - start[key] for key, value in base.trainable.snapshot().items()}
            else:
                result[name] = {"losses": losses(base, name, rows, queries)}
        except Exception as error:  # what is shown is which cannot be divided
            result[name] = f"{type(error).__name__}: {str(error)[:80]}"
    if process_group.joined():
        weights = list(base.model.parameters())
        result["held"] = f"{sum(process_group.own(p).nbytes for p in weights) / sum(p.numel() * p.element_size() for p in weights):.3f}"  # fmt: skip
        assert any(process_group.is_divided(p) for p in weights)
    return result


def trained(base: Base, name: str, optimizer: str = "adamw", rows: int = ROWS) -> None:
    """Two epochs of a method from the base model."""
    view, _ = split(embedded_text.task(SMALL), 0.2)
    view = replace(view, forget=view.forget[:rows], retain=view.retain[:rows])
    fields = find(Method, name).__dataclass_fields__
    options = {key: value for key, value in {"lr": 2e-3, "epochs": 2}.items() if key in fields and name != "rmu"}
    base.restore(0)
    reference = BaseStatistics(base, TrainingRows.of(view, base, 0))
    unlearn(base, make(Method, name, options), reference, batch=16, seed=0, engine=Engine(optimizer=optimizer))


def losses(base: Base, name: str, rows: int = ROWS, queries: int = QUERIES) -> torch.Tensor:
    """(queries,) thousandths of a model that has half forgotten."""
    trained(base, "grad_diff", rows=rows)
    weights = base.trainable.snapshot()
    risk = measurement(name)
    task, _ = split(embedded_text.task(SMALL), 0.3, sources={"risk": risk.source})
    (probe,) = probes(base, {"risk": task.queries["risk"][:queries]}, {"risk": risk}, task)
    base.trainable.load(weights, 0.3)
    return torch.from_numpy(measured(base, [probe])["risk"].astype(float))


def process(rank: int, meeting: str, wanted: list[str], train: str, optimizer: str, results: Any) -> None:
    """One of the group."""
    process_group.join(rank, COUNT, Path(meeting), "cpu")
    made = ends(wanted, train, optimizer)
    if rank == 0:
        # as bytes: tensors would be handed over through this process, which ends
        results.send_bytes(
            pickle.dumps({name: value if isinstance(value, str) else _arrays(value) for name, value in made.items()})
        )


def _arrays(change: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in change.items()}


def line(name: str, ours: Any, theirs: Any) -> str:
    """What is printed of one."""
    if isinstance(ours, str) or isinstance(theirs, str):
        same = "; so in one process" if ours == theirs else ""
        return f"{name}: {ours if isinstance(ours, str) else theirs}{same}"
    differences = {key: torch.from_numpy(ours[key]) - value for key, value in theirs.items()}
    if "losses" in differences:
        return f"{name}: apart {float(differences['losses'].abs().max()):g} thousandths of {float(theirs['losses'].mean()):.0f}"  # fmt: skip
    way = sum(float(value.square().sum()) for value in theirs.values()) ** 0.5
    apart = sum(float(value.square().sum()) for value in differences.values()) ** 0.5
    return f"{name}: apart {apart / max(way, 1e-12):.1e}"


def main() -> None:
    """Print a line per method, metric and attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="*")
    parser.add_argument("--train", default="full")
    parser.add_argument("--optimizer", default="adamw")
    options = parser.parse_args()
    wanted = options.wanted or [*every_method(), *every_look()]
    choice = wanted, options.train, options.optimizer
    alone, context = ends(*choice), multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        group = [context.Process(target=process, args=(rank, meeting, *choice, sender)) for rank in range(COUNT)]
        for member in group:
            member.start()
        received = pickle.loads(receiver.recv_bytes())
        for member in group:
            member.join()
    print("held", received["held"])
    for name in wanted:
        print(line(name, received[name], alone[name]))


if __name__ == "__main__":
    main()
