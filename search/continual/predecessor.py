"""`--after`: the run whose unlearned model a search starts from, the request that comes next, and the folder of the new run."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.errors import InputError

if TYPE_CHECKING:
    from froc.data.task import Task
    from froc.search.continual.chain import RunChain

OUT = Path("froc-run")


@dataclass(frozen=True)
class PredecessorOptions:
    """after: folder of the earlier run. earlier: task folders of earlier requests. unmeasured: skip earlier requests (`--no-earlier`)."""

    after: Path | None = None
    earlier: tuple[Path, ...] = ()
    unmeasured: bool = False

    def check(self) -> None:
        """InputError where the options do not go together."""
        if self.after is None and (self.earlier or self.unmeasured):
            raise InputError("--earlier and --no-earlier say what a run had removed before; give that run: --after RUN")
        if self.earlier and self.unmeasured:
            raise InputError("--earlier and --no-earlier contradict each other; leave one of them out")

    @property
    def risks(self) -> tuple[str, ...]:
        """Risks that are budgeted beside the profile's; `expand_earlier_budget` names those of a chain with several requests."""
        return ("earlier",) if self.after is not None and not self.unmeasured else ()

    def out(self, out: Path | None) -> Path:
        """The run folder: by default the earlier run's with the next number, `froc-run-2` after `froc-run`."""
        if self.after is None:
            return out or OUT
        name = re.fullmatch(r"(.*?)(?:-(\d+))?", self.after.resolve().name)
        assert name is not None
        place = out or self.after.parent / f"{name[1]}-{int(name[2] or 1) + 1}"
        if place.resolve() == self.after.resolve():
            raise InputError(f"--out {place} is the run to go on after; choose another run folder")
        return place

    def read(self) -> "RunChain | None":
        """The chain of runs that ends with the earlier run; None where there is none."""
        from froc.search.continual.chain import read

        return None if self.after is None else read(self.after, not self.unmeasured)


def expand_earlier_budget(budget: Mapping[str, float], after: "RunChain | None") -> dict[str, float]:
    """Budgets with that of `earlier` given to each earlier request."""
    from froc.data.continual import risks
    from froc.data.task import EARLIER

    if after is None or EARLIER not in budget:
        return dict(budget)
    many = risks(len(after.document["tasks"]))
    return {name: alpha for risk, alpha in budget.items() for name in (many if risk == EARLIER else (risk,))}


def request_after(task: Path | None, after: "RunChain | None") -> Path | None:
    """The task to unlearn: the one that was asked for or, after a run on the embedded task, by default its next request."""
    from froc.data.tasks import embedded_text

    if task is not None or after is None:
        return task
    last = embedded_text.request_of(after.document["requests"][-1]["name"])
    if last is None:
        raise InputError("--after needs --task: what is to be removed now")
    return Path(embedded_text.named(last + 1))


def original(
    after: "RunChain", names: Sequence[str | None], cache: Path, device: str | None, dtype: str | None,
    training: Callable[[str, int, int], None],
) -> tuple[Callable[[], Any], bool]:  # fmt: skip
    """(loads the model before all removals, or gives None; whether it is the embedded task's). names: where it may lie."""
    from froc.data.tasks import embedded_text
    from froc.models import base
    from froc.search.continual import chain
    from froc.training import embedded

    if embedded_text.request_of(after.document["requests"][0]["name"]) is not None:
        start = embedded.base(cache=cache, device=device or base.default_device(), progress=training)
        if start.digest == after.document["original"]["digest"]:
            return (lambda: start), True
    name = next((name for name in names if name), None)
    if name is None:
        return (lambda: None), False
    return chain.original(after, lambda: base.load(name, device=device, dtype=dtype)), False


def with_earlier(task: "Task", after: "RunChain", earlier: Sequence[Path], questions: int, known: bool) -> "Task":
    """The task with what was removed before it. known: the chain's requests are the embedded task's."""
    from froc.data.continual import after as follow
    from froc.data.tasks import embedded_text

    past = after.past(earlier, questions, embedded_text.Recipe() if known else None)
    if task.name in [request["name"] for request in after.document["requests"]] and known:
        raise InputError(f"{task.name} was removed before; the next request is the default, without --task")
    return follow(task, past) if past else task
