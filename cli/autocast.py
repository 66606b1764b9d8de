"""A warning where `--autocast` makes training slower instead of faster."""

from typing import TYPE_CHECKING

from froc.cli import words

if TYPE_CHECKING:
    from froc.search.job import Job

SLOWER = 1.1
"""Times as long as in float32 from which a matrix product is called slower: less may be noise of the clock."""


def warn_of_slow_autocast(job: "Job") -> None:
    """Time a matrix product on the device that trains, and say it where the other precision is slower there."""
    from froc.models.compute import slowdown

    precision = None if job.engine is None else job.engine.autocast
    if precision is None:
        return
    ratio = slowdown(precision, job.base.device)
    if ratio > SLOWER:
        name = str(precision).removeprefix("torch.")
        line = f"a matrix product in {name} takes {ratio:.1f} times as long as in float32 on this {job.base.device.type}; leave --autocast out"
        words.messages.print(f"[yellow]warning:[/] {words.visible(line)}", soft_wrap=True)
