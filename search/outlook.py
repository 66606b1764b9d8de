"""Would the best configuration so far be certified? Judged by search losses alone, for `--until certified`.

A search that stops by this rule has looked at no calibration loss, so the certificate needs no correction for it.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from froc import digest
from froc.claim import Claim, evidence, level, p_values
from froc.losses import SCALE, matrix
from froc.procedures import first_levels

LIKELY = 0.8
"""Chance of a certificate at which a search may stop."""
DRAWS = 100


def chance(table: pl.DataFrame, config: str, claim: Claim, units: Mapping[str, int], candidates: int) -> float:
    """Share of imagined calibrations, in [0, 1], in which a configuration passes at the first candidate's level.

    table: search losses. units: risk -> calibration units. A calibration is imagined by two draws with replacement:
    as many units as were searched, for what the search does not know, then the calibration units from those. One unit
    of the worst loss is added, so that few units without a loss do not pass for certainty.
    """
    draw = np.random.default_rng(digest.seed("outlook", config))
    imagined = {}
    for risk in claim.risks:
        seen = matrix(table, risk=risk, split=None, configs=[config], unit=claim.unit[risk]).values[0]
        pool = draw.choice(np.append(seen, SCALE), (DRAWS, len(seen) + 1))
        places = draw.integers(len(seen) + 1, size=(DRAWS, units[risk]))
        imagined[risk] = evidence(np.take_along_axis(pool, places, 1).astype(np.int16))
    # a listed population only makes it easier
    plain = replace(claim, population={}, listed={})
    first = first_levels(claim.procedure, 1.0 / np.arange(1, candidates + 1), level(claim))[0]
    p = np.max([p_values(plain, risk, imagined, candidates) for risk in claim.budget], axis=0)
    return float((p <= first).mean())
