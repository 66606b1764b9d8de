"""Measuring the base model before any trial, and again on the calibration queries when they are opened.

`froc.risk.positive_control` defines what the base model must show, and when a risk is vacuous.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from froc.data import named_prompts
from froc.data.task import Query
from froc.errors import InputError
from froc.loss_table import matrix
from froc.measuring.agreement import refuse
from froc.risk.claim import Claim, Evidence, evidence_from_matrix
from froc.risk.positive_control import BASE, complaint, document, score_threshold
from froc.risk.rounding import at_least
from froc.search.executors import Executor
from froc.search.job import Job
from froc.search.plan import Plan
from froc.search.run_folder import Folder, write_table
from froc.search.trial.work import Agreement, CheckPrompt, MeasureBase

LOG = logging.getLogger("froc")
Queries = Mapping[str, tuple[Query, ...]]
ACTIVITY = "measuring the base model"
"""What progress displays call it."""


@dataclass(frozen=True)
class BaseMeasurement:
    """The base model on search queries. absences: its loss table (`froc.risk.positive_control`); base: risk -> what that shows, as certificates
    say it; notes: how it was asked and what speaks against that, as plans keep them; doubts: risks that it may not exceed;
    environment: how whoever measured computes."""

    absences: pl.DataFrame
    base: dict[str, Any]
    notes: list[str]
    doubts: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def before_search(executor: Executor, job: Job, plan: Plan, folder: Folder) -> BaseMeasurement:
    """Measure the base model, or read what an earlier call in this folder measured.

    Raises InputError naming vacuous risks and the mend, unless the user goes on with them.
    """
    claim, notes = plan.claim, list((folder.read(folder.plan) or {}).get("notes", ()))
    others: list[str] = []
    environment: Mapping[str, str] = {}
    if folder.base_losses.is_file():
        absences = _of_search(folder)
    else:
        agreement, absences = executor.each(
            [CheckPrompt(), MeasureBase("search", job.view.queries)], lambda done: job.progress(ACTIVITY, done, 2)
        )
        refuse(agreement.disagreements, agreement.n_queries, agreement.prompt)
        others, environment = _other_prompts(job), agreement.environment
        notes = [_prompt_note(agreement), *others]
    base = document(plan.document["control"], _evidence(absences, claim), _plain(claim))
    LOG.info("before: %s", ", ".join(f"{risk} {shown['before']:.3f}" for risk, shown in base.items()))
    vacuous = [risk for risk, shown in base.items() if _within(shown, claim.budget.get(risk))]
    if vacuous and not job.settings.allow_vacuous:
        raise InputError(
            "; ".join([*(complaint(risk, base[risk], claim.budget[risk]) for risk in vacuous), *others])
            + "; --allow-vacuous goes on, and every output then says NOT ESTABLISHED"
        )
    return BaseMeasurement(absences, base, notes, _open_questions(base, claim.budget), environment)


def _plain(claim: Claim) -> Claim:
    """The claim about queries like these: of a list only a part is known before calibration, so that its bounds cannot be taken."""
    bound = {risk: "betting" if claim.kind(risk) != "queries" else name for risk, name in claim.bound.items()}
    return replace(claim, bound=bound, population={}, listed={})


def _evidence(absences: pl.DataFrame, claim: Claim) -> dict[str, Evidence]:
    return {
        risk: evidence_from_matrix(
            matrix(absences, risk=risk, split="search", configs=[BASE], unit=claim.unit[risk]).values
        )
        for risk in claim.risks
    }


def _of_search(folder: Folder) -> pl.DataFrame:
    return pl.read_parquet(folder.base_losses).filter(pl.col("split") == "search")


def _prompt_note(agreement: Agreement) -> str:
    likely = ", ".join(f"{value:.3f} of {risk}" for risk, value in agreement.likelihood.items())
    odd = "".join(f"; one query disagrees ({disagreement})" for disagreement in agreement.disagreements)
    return (
        f"asked with {agreement.prompt}, the base model gives answer tokens a likelihood of {likely} (geometric mean); "
        f"{agreement.n_queries} search queries were asked by plain generation, too{odd}"
    )


def _other_prompts(job: Job) -> list[str]:
    """Warnings where files beside the base model, or the unlearned one, name another prompt than the task's."""
    folders = [Path(job.base.name), *([job.external.folder] if job.external is not None else [])]
    prompts = [prompt for folder in folders for prompt in named_prompts.beside(folder)]
    rows = [next((query.row for query in queries if query.row.question), None) for queries in job.view.queries.values()]
    with_question = [row for row in rows if row is not None]
    return named_prompts.warnings(prompts, job.base.tokenizer, with_question, job.view.template)


def measure_calibration(executor: Executor, queries: Queries, folder: Folder) -> None:
    """Measure the base model on the calibration queries; its absences go to a file of their own, since they are no candidate's losses."""
    tables: list[pl.DataFrame] = executor.each([MeasureBase("calibration", queries)])
    write_table(folder.base_losses, pl.concat([_of_search(folder), *tables]))


def _open_questions(base: Mapping[str, Mapping[str, Any]], budget: Mapping[str, float]) -> list[str]:
    """Risks whose lower bound may not come to lie above the budget."""
    return [
        f"{risk}: the base model shows {shown['before']:.3f} on search queries, at least {at_least(shown['lower'])}: whether that exceeds "
        f"{'0' if shown.get('relative') else f'the budget of {budget[risk]:g}'} is open, and nothing is certified unless the "
        "calibration queries show it"
        for risk, shown in base.items()
        if shown["vacuous"] and not _within(shown, budget.get(risk))
    ]


def _within(shown: Mapping[str, Any], budget: float | None) -> bool:
    if budget is None or shown["control"] == "none":
        return False
    return float(shown["before"]) <= score_threshold(budget, bool(shown.get("relative")))
