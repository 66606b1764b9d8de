"""Run folders -> comparable runs: same task, base model and division of queries."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from froc import hashing
from froc.errors import InputError
from froc.measuring import named_risks
from froc.plan_identity import identity
from froc.search import build
from froc.search.comparison.terms import ComparedRun, Terms
from froc.search.earlier_plan import draw_of
from froc.search.job import Job
from froc.search.machine import Machine
from froc.search.run_folder import Folder
from froc.search.settings import Settings, settings_of


def compared_runs(
    runs: Sequence[Path], terms: Terms, machine: Machine, progress: Callable[[str, int, int], None],
    *, task: Path | None = None, data: Path | None = None, model: str | None = None,
) -> list[ComparedRun]:  # fmt: skip
    """The runs with their jobs; InputError where they cannot be compared.

    task, data, model: location of the runs' task, a benchmark's files and the base model, see
        `froc.search.build.Inputs`.
    progress: called with (what, done, of) while the embedded model is made.
    """
    compared: list[ComparedRun] = []
    plans = {path: Folder(path).require_plan() for path in runs}
    # on the embedded task, whose questions are public, a comparison draws new ones
    questions = int(hashing.sha256_json([[identity(plan) for plan in plans.values()], vars(terms)])[:8], 16)
    for path, plan in plans.items():
        units = {risk: plan["task"]["units"][risk] for risk in named_risks.BASIC}
        job = build.build_job(
            _settings(path, plan),
            build.Inputs(
                task,
                model,
                data,
                units,
                plan["task"]["split_seed"],
                questions=questions,
                label=str(questions),
                draw="by-row" if task is None else draw_of(plan),
            ),
            machine,
            progress,
        )
        _refuse_other(path, plan, job, embedded=task is None)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "run"
        compared.append(ComparedRun(name, Folder(path), plan, job))
    if len({run.name for run in compared}) < len(compared):
        raise InputError("two runs have the same name; rename one of the folders")
    for run in compared[1:]:
        if run.job.sealed.digests != compared[0].job.sealed.digests:
            raise InputError(
                f"{run.name} divides the queries otherwise than {compared[0].name}; they cannot be compared"
            )
    return compared


def _settings(path: Path, plan: Mapping[str, Any]) -> Settings:
    """Settings of a run, as far as training and measuring its trials again depend on them."""
    kinds = {plan.get("population", {}).get(risk, "queries") for risk in named_risks.BASIC}
    if plan.get("after"):
        raise InputError(
            f"{path} goes on after another run; methods are compared on runs of the first base model alone"
        )
    if kinds != {"queries"}:
        raise InputError(f"{path} is about listed rows; methods are compared on populations of queries alone")
    # further risks and the testing of candidates play no part in a comparison
    settings = replace(settings_of(plan, {}), sequential=False, pack=1)
    budget = {risk: settings.budget.get(risk, 0.1) for risk in named_risks.BASIC}
    return replace(settings, budget=budget, metrics={risk: settings.metrics[risk] for risk in named_risks.BASIC})


def _refuse_other(path: Path, plan: Mapping[str, Any], job: Job, embedded: bool) -> None:
    if job.base.digest != plan["model"]["digest"]:
        raise InputError(
            f"{path} was made with another base model ({plan['model']['name']}); give that one with --model"
        )
    if not embedded and job.task.digest != plan["task"]["digest"]:
        raise InputError(f"{path} was made with another task ({plan['task']['name']}); give that folder with --task")
    if embedded and job.task.name != plan["task"]["name"]:
        raise InputError(f"{path} was made with the task {plan['task']['name']}; give its folder with --task")
