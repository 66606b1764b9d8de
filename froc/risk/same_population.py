"""Whether the queries of a further stage can be of the population of those before, by the base model's losses alone. Torch-free."""

from dataclasses import replace

import numpy as np
import polars as pl

from froc.bounds import betting
from froc.loss_table import SCALE, matrix
from froc.risk.claim import Claim
from froc.risk.evidence import evidence_from_table
from froc.risk.positive_control import BASE, Control

LEVEL = 1e-6
"""Error of each of the two bounds that are compared: a stage of the same population is refused with at most twice that, per risk."""


def complaint(control: Control, claim: Claim) -> str | None:
    """Why the last stage of a claim is of another population; None where nothing says so.

    The base model's score on the stage, bounded from above, must not lie below its score on all earlier calibration queries, bounded from
    below. Means of units are compared: with groups as units the mean of group means. control: with the base model's losses on all stages.
    """
    *earlier, last = claim.stages
    unit = {risk: "query" if of_risk == "query" else "group" for risk, of_risk in claim.unit.items()}
    before = replace(claim, unit=unit, relative=(), stages=tuple(earlier))
    for risk in claim.risks:
        in_stage = control.table.filter(pl.col("risk") == risk, pl.col("split") == last.split)
        if control.kinds[risk] == "none" or in_stage.is_empty():
            continue
        known = evidence_from_table(control.table, risk, [BASE], before, None)
        absences = matrix(in_stage, risk=risk, split=last.split, configs=[BASE], unit=unit[risk]).values
        lower = 1 - float(betting.upper_from_losses(np.asarray(known.losses) / SCALE, LEVEL, ends=known.ends)[0])
        upper = float(betting.upper_from_losses(np.asarray(1 - absences / SCALE), LEVEL)[0])
        if upper < lower:
            return (
                f"{risk}: these rows are not of the population of those before: the base model scores {1 - absences.mean() / SCALE:.3f} on them "
                f"(at most {upper:.3f}), and at least {lower:.3f} on earlier ones; no candidate was measured, and the stage is taken back: "
                "give other rows, drawn as the first ones were"
            )
    return None
