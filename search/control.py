"""The base model is measured before a trial is spent on it, and again on the calibration queries when they are opened.

What must be there before it can be removed, and when a risk is vacuous, stands in `froc.control`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from froc.agreement import refuse
from froc.claim import Claim, evidence
from froc.control import BASE, Control, Kind, complaint, document, least
from froc.data import Query
from froc.errors import InputError
from froc.losses import matrix
from froc.rounding import at_least
from search.executors import Executor
from search.folder import Folder, write_table
from search.work import Agreement, CheckPrompt, MeasureBase

LOG = logging.getLogger("froc")
Queries = Mapping[str, tuple[Query, ...]]


def before_search(
    executor: Executor, queries: Queries, kinds: Mapping[str, Kind], claim: Claim, folder: Folder, allowed: bool
) -> tuple[pl.DataFrame, dict[str, Any], list[str]]:
    """Absences of the base model on search queries, what they show by risk, as certificates say it, and notes for the user.

    allowed: whether vacuous risks are gone on with. Raises InputError naming them and the mend where they are not.
    """
    if folder.base_losses.is_file():
        table, said = pl.read_parquet(folder.base_losses).filter(pl.col("split") == "search"), []
    else:
        agreement, table = executor.each([CheckPrompt(), MeasureBase("search", queries)])
        refuse(agreement.disagreements, agreement.asked, agreement.prompt)
        said = [_asked(agreement)]
    # of a list only a part is known yet, so that its bounds cannot be taken
    plain = {risk: "betting" if claim.kind(risk) != "queries" else bound for risk, bound in claim.bound.items()}
    claim = replace(claim, bound=plain, population={}, listed={})
    units = {
        risk: evidence(matrix(table, risk=risk, split="search", configs=[BASE], unit=claim.unit[risk]).values)
        for risk in claim.risks
    }
    shown = document(kinds, units, claim)
    LOG.info("before: %s", ", ".join(f"{risk} {one['before']:.3f}" for risk, one in shown.items()))
    refused = [risk for risk, one in shown.items() if _within(one, claim.budget.get(risk))]
    if refused and not allowed:
        raise InputError(
            "; ".join(complaint(risk, shown[risk], claim.budget[risk]) for risk in refused)
            + "; --allow-vacuous goes on, and every output then says NOT ESTABLISHED"
        )
    return table, shown, [*said, *notes(shown, claim.budget)]


def _asked(agreement: Agreement) -> str:
    likely = ", ".join(f"{value:.3f} of {risk}" for risk, value in agreement.likelihood.items())
    odd = "".join(f"; one query disagrees ({one})" for one in agreement.disagreements)
    return (
        f"asked with {agreement.prompt}, the base model gives answer tokens a likelihood of {likely} (geometric mean); "
        f"{agreement.asked} search queries were asked by plain generation, too{odd}"
    )


def opened(executor: Executor, queries: Queries, folder: Folder) -> None:
    """Measure the base model on the calibration queries; its absences stand in a file of their own, for they are no candidate's losses."""
    table = pl.read_parquet(folder.base_losses).filter(pl.col("split") == "search")
    tables: list[pl.DataFrame] = executor.each([MeasureBase("calibration", queries)])
    write_table(folder.base_losses, pl.concat([table, *tables]))


def control(folder: Folder, plan: Mapping[str, Any]) -> Control | None:
    """The base model's absences of a run; None where a plan of an older version asked for none."""
    kinds = plan.get("control")
    return None if kinds is None else Control(pl.read_parquet(folder.base_losses), kinds)


def notes(shown: Mapping[str, Mapping[str, Any]], budget: Mapping[str, float]) -> Sequence[str]:
    """What a user should know before hours are spent: a lower bound that may not come to lie above the budget."""
    near = [risk for risk, one in shown.items() if one["vacuous"] and not _within(one, budget.get(risk))]
    return [
        f"{risk}: the base model shows {shown[risk]['before']:.3f} on search queries, at least {at_least(shown[risk]['lower'])}: whether "
        f"that exceeds {'0' if shown[risk].get('relative') else f'the budget of {budget[risk]:g}'} is open, and nothing is certified unless the calibration queries show it"
        for risk in near
    ]


def _within(one: Mapping[str, Any], budget: float | None) -> bool:
    limit = None if budget is None else least(budget, bool(one.get("relative")))
    return one["control"] != "none" and limit is not None and float(one["before"]) <= limit
