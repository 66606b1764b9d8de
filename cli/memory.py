"""The table of the memory that a search's methods need, as `froc bench` and `froc search --dry-run` print it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from froc.cli import words

if TYPE_CHECKING:
    from froc.search.job import Job
    from froc.search.machine import Machine
    from froc.search.trial.memory_table import MemoryTable

GB = 10**9
PARTS = ("weights", "base_copy", "gradients", "moments", "activations")


def print_memory(job: "Job", machine: "Machine", progress: Callable[[str], object], json_: bool) -> None:
    """Print what a search would need, instead of beginning it."""
    import torch

    from froc.models.device_map import named
    from froc.search.machine import worker_devices
    from froc.search.trial.memory_table import memory_table

    workers = [name for name in worker_devices(machine) if name != "ray"]
    devices = [torch.device(name) for name in named(workers[0])] if workers else None
    memory = memory_table(job, checkpointing=machine.checkpointing, devices=devices, progress=progress)
    if json_:
        words.emit(memory.document)
        return
    words.results.print(memory_lines(memory))
    words.results.print(words.visible(memory.sentence), soft_wrap=True)


def memory_lines(memory: "MemoryTable") -> Table:
    """Needs in GB of 10^9 bytes by options, and which the device has room for."""
    there = "" if memory.device_bytes is None else f", {memory.device_bytes / GB:.3g} GB there"
    of = f"{memory.method}, which needs most" if memory.method else "parameters"
    table = Table(
        title=words.visible(f"memory of {of}, on {memory.device}{there}"), title_justify="left", header_style="bold", box=None
    )  # fmt: skip
    table.add_column("options, measuring")
    for column in ("needed GB", *PARTS):
        table.add_column(words.visible(column.replace("_", " ")), justify="right")
    table.add_column("fits")
    measuring = [(f"measuring {risk}", needs) for risk, needs in memory.measuring]
    for options, needs in [*memory.rows, *measuring]:
        parts = [f"{needs.document[part] / GB:.3g}" for part in PARTS]
        fits = {None: "", True: "yes", False: "no"}[memory.fits(needs)]
        table.add_row(words.visible(options), f"{needs.total / GB:.3g}", *parts, fits)
    more = f"; not counted: {', '.join(memory.unknown)}" if memory.unknown else ""
    table.caption = words.visible(
        f"for the longest rows, all of a step or a look at once; fewer at a time where that does not fit{more}"
    )
    table.caption_justify = "left"
    return table
