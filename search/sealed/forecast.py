"""Whether any candidate so far would be certified, judged by search losses only, for `--until certified`.

A search that stops by this rule has used no calibration loss, so the certificate needs no correction for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from froc import hashing, procedures
from froc.loss_table import SCALE
from froc.planning.pass_probability import simulate_calibration
from froc.risk.certificate import Candidate
from froc.risk.claim import Claim, Evidence, evidence_from_matrix, level, own_levels
from froc.risk.evidence import of_search
from froc.risk.p_values import at_levels, p_values

STOP_PROBABILITY = 0.8
"""Probability of a certificate at which a search may stop."""
DRAWS = 100


def certification_probability(
    table: pl.DataFrame,
    candidates: Sequence[Candidate],
    claim: Claim,
    units: Mapping[str, int],
    base: pl.DataFrame | None = None,
) -> float:
    """Share of simulated calibrations, in [0, 1], in which the claim's procedure certifies at least one of the candidates.

    table: search losses of all candidates, on the same queries.
    units: risk -> calibration units.
    base: the base model's search losses, for relative budgets.

    Each simulation draws the same queries for every candidate (`froc.planning.pass_probability.simulate_calibration`).
    """
    # ignoring a listed population is conservative
    plain = replace(claim, population={}, listed={}, estimand={})
    drawn = {risk: _simulated(table, candidates, risk, claim, units[risk], base) for risk in claim.risks}
    weights = np.array([candidate.weight for candidate in candidates])
    p = []
    for place, own in enumerate(own_levels(plain, weights)):
        evidence = {risk: of_candidates[place] for risk, of_candidates in drawn.items()}
        p.append(np.max([p_values(plain, risk, evidence, len(candidates), own=own) for risk in claim.budget], axis=0))
    return float(
        np.mean([procedures.certified(claim.procedure, draw, weights, level(claim)).any() for draw in np.transpose(p)])
    )


def _simulated(
    table: pl.DataFrame, candidates: Sequence[Candidate], risk: str, claim: Claim, units: int, base: pl.DataFrame | None
) -> list[Evidence]:
    """Per candidate DRAWS simulated calibrations of one risk, as evidence of so many configurations."""
    alpha = np.array([claim.budget.get(risk, 0.5)])
    searched = [of_search(table, risk, candidate.config, claim, base) for candidate in candidates]
    seen = [np.asarray(at_levels(claim, risk, evidence, alpha).losses)[0] for evidence in searched]
    draw = np.random.default_rng(hashing.derive_seed("outlook", risk))
    pool, places = simulate_calibration(draw, len(seen[0]), units, DRAWS)
    chosen = np.take_along_axis(pool, places, 1)
    return [evidence_from_matrix(np.append(losses, SCALE)[chosen].astype(np.int16)) for losses in seen]
