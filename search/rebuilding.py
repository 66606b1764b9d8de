"""The job of a finished run, made again from its plan and from inputs that are checked against it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.errors import InputError
from froc.measuring import named_risks
from froc.search.build import Inputs, build_job
from froc.search.machine import Machine

if TYPE_CHECKING:
    from froc.search.continual.chain import RunChain
    from froc.search.job import Job


@dataclass(frozen=True)
class Rebuilding:
    """What a plan does not hold. subject: what messages call the plan's owner. task, data, base, after, earlier: see
    `froc.search.build.Inputs`; metrics: risk -> metric that needs a folder of its own."""

    subject: str
    task: Path | None = None
    data: Path | None = None
    base: str | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    after: "RunChain | None" = None
    earlier: Sequence[Path] = ()


def machine_of(environment: Mapping[str, Any], machine: Machine) -> Machine:
    """The machine, with the kernels of the run's environment: its attention where every machine has it, else the fastest here."""
    kernel = environment.get("attention")
    return replace(
        machine, attention=kernel if kernel in ("eager", "sdpa") else None, deterministic=environment.get("deterministic") == "yes"
    )  # fmt: skip


def rebuilt_job(
    plan: Mapping[str, Any],
    given: Rebuilding,
    machine: Machine,
    progress: Callable[[str, int, int], None],
    *,
    whole: bool = False,
) -> "Job":
    """The plan's job; InputError where the given inputs differ from it. whole: all parameters may be replaced."""
    from froc.data.tasks import embedded_text
    from froc.search.earlier_plan import draw_of
    from froc.search.reexecution import refuse_other_job
    from froc.search.settings import not_written, settings_of

    try:
        planned_task = plan["task"]
        label = plan["split"].get("label", "")
        if not isinstance(label, str):
            raise not_written("split.label", "not text")
        # a folder that a report names is not opened
        if given.task is None and ("questions" not in plan or embedded_text.request_of(planned_task["name"]) is None):
            raise InputError(
                f"the {given.subject} is about the task {planned_task['name']}; give its folder with --task"
            )
        units = {risk: planned_task["units"][risk] for risk in named_risks.BASIC}
        settings = settings_of(plan, given.metrics)
        if whole:
            settings = replace(settings, train="full", pack=1)
        inputs = Inputs(
            given.task or Path(planned_task["name"]), given.base, given.data, units, planned_task["split_seed"], after=given.after,
            earlier=given.earlier, questions=plan.get("questions"), label=label, draw=draw_of(plan),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise not_written(str(error), type(error).__name__) from error
    job = build_job(settings, inputs, machine, progress)
    refuse_other_job(job, plan, given.subject)
    return job


def chain_of(plan: Mapping[str, Any], after: Path | None, subject: str) -> "RunChain | None":
    """The run that a plan continues; InputError where `after` is another one. subject: what messages call the plan's owner."""
    from froc.search.continual.chain import read

    planned = plan.get("after")
    if planned is None and after is None:
        return None
    if planned is None:
        raise InputError(f"the {subject} goes on after no other run; leave --after out")
    if after is None:
        raise InputError(
            f"the {subject} goes on after another run, which removed {len(planned['tasks'])} request(s); give its folder with "
            "--after, and the task folders of those requests with --earlier"
        )
    chain = read(after, planned["measured"])
    if chain.plan_entry != planned:
        raise InputError(
            f"{after} is not the run that the {subject} goes on after: its certificate or model is another one"
        )
    return chain
