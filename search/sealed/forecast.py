"""Whether the best configuration so far would be certified, judged by search losses only, for `--until certified`.

A search that stops by this rule has used no calibration loss, so the certificate needs no correction for it.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from froc import hashing
from froc.loss_table import SCALE
from froc.planning.pass_probability import simulate_calibration
from froc.risk.claim import Claim, evidence_from_matrix
from froc.risk.evidence import of_search
from froc.risk.p_values import at_levels, p_values
from froc.risk.requirements import first_level

STOP_PROBABILITY = 0.8
"""Probability of a certificate at which a search may stop."""
DRAWS = 100


def certification_probability(
    table: pl.DataFrame,
    config: str,
    claim: Claim,
    units: Mapping[str, int],
    candidates: int,
    base: pl.DataFrame | None = None,
) -> float:
    """Share of simulated calibrations, in [0, 1], in which a configuration passes at the first candidate's level.

    table: search losses.
    units: risk -> calibration units.
    base: the base model's search losses, for relative budgets.

    The simulation is `froc.planning.pass_probability.imagined`.
    """
    draw = np.random.default_rng(hashing.derive_seed("outlook", config))
    drawn_evidence = {}
    for risk in claim.risks:
        searched = of_search(table, risk, config, claim, base)
        seen = np.asarray(at_levels(claim, risk, searched, np.array([claim.budget.get(risk, 0.5)])).losses)[0]
        pool, places = simulate_calibration(draw, len(seen), units[risk], DRAWS)
        drawn = np.append(seen, SCALE)[np.take_along_axis(pool, places, 1)]
        drawn_evidence[risk] = evidence_from_matrix(drawn.astype(np.int16))
    # ignoring a listed population is conservative
    plain = replace(claim, population={}, listed={}, estimand={})
    p = np.max([p_values(plain, risk, drawn_evidence, candidates) for risk in claim.budget], axis=0)
    return float((p <= first_level(claim, candidates)).mean())
