"""Tables of losses -> evidence for each risk of a claim."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from froc.errors import InputError
from froc.loss_table import SCALE, WEIGHTED, LossMatrix, joined, matrix, prefixes, refuse_shared_units
from froc.risk.claim import Claim, Evidence, evidence_from_matrix
from froc.risk.positive_control import BASE


def evidence_from_table(
    table: pl.DataFrame,
    risk: str,
    names: Sequence[str],
    claim: Claim,
    order: pl.DataFrame | None,
    base: pl.DataFrame | None = None,
) -> Evidence:
    """Losses of calibration units. base: the base model's rows, for relative budgets."""
    kind, unit = claim.kind(risk), claim.unit[risk]
    if kind == "census" and unit == WEIGHTED:
        unit = "query"  # in a census both units give the mean over all queries
    if (unit != "query" and kind != "census") or claim.stages:
        refuse_shared_units(table, risk)
    if claim.sequential and order is not None:
        rows, planned = prefixes(table, order.filter(pl.col("risk") == risk), risk=risk, configs=names, unit=unit)
        return Evidence(rows, np.zeros(len(names), dtype=np.int64), 0, planned)
    if claim.stages:
        return _of_stages(table, risk, names, claim, base)
    split = None if kind == "census" else "calibration"
    measured = matrix(table, risk=risk, split=split, configs=names, unit=unit)
    if risk in claim.relative and base is not None:
        return _of_share(measured, matrix(base, risk=risk, split=split, configs=[BASE], unit=unit), risk, claim)
    losses, sums, queries = measured.values, measured.sums.sum(axis=1), int(measured.sizes.sum())
    if unit == WEIGHTED:
        return replace(_by_queries(measured, risk, claim), pooled=sums / (SCALE * queries))
    if kind != "sample" or table.filter(pl.col("risk") == risk, pl.col("split") == "search").is_empty():
        return replace(evidence_from_matrix(losses), pooled=sums / (SCALE * queries) if unit == "group" else None)
    known = matrix(table, risk=risk, split="search", configs=names, unit=unit)
    looked, sums, queries = known.values, sums + known.sums.sum(axis=1), queries + int(known.sizes.sum())
    if looked.shape[1] + losses.shape[1] > claim.listed[risk]:
        raise InputError(f"{risk}: more units are measured than the {claim.listed[risk]} that are listed")
    return Evidence(
        losses, looked.sum(axis=1, dtype=np.int64), looked.shape[1], losses.shape[1],
        pooled=sums / (SCALE * queries) if unit == "group" else None,
    )  # fmt: skip


def _of_stages(
    table: pl.DataFrame, risk: str, names: Sequence[str], claim: Claim, base: pl.DataFrame | None
) -> Evidence:
    """The units of all stages, one stage after the other."""
    unit = claim.unit[risk]
    splits = ["calibration", *(stage.split for stage in claim.stages)]

    def measured(of: pl.DataFrame, configs: Sequence[str]) -> tuple[LossMatrix, tuple[int, ...]]:
        with_rows = set(of.filter(pl.col("risk") == risk, pl.col("config").is_in(list(configs)))["split"].unique())
        parts = {
            split: matrix(of, risk=risk, split=split, configs=configs, unit=unit)
            for split in splits
            # a stage may be about some of the risks
            if split == splits[0] or split in with_rows
        }
        counts = [len(parts[split].units) if split in parts else 0 for split in splits]
        return joined([*parts.values()]), tuple(int(end) for end in np.cumsum(counts)[:-1])

    matrix_of_all, ends = measured(table, names)
    if risk in claim.relative and base is not None:
        evidence = _of_share(matrix_of_all, measured(base, [BASE])[0], risk, claim)
    elif unit == WEIGHTED:
        sums, queries = matrix_of_all.sums.sum(axis=1), int(matrix_of_all.sizes.sum())
        evidence = replace(_by_queries(matrix_of_all, risk, claim), pooled=sums / (SCALE * queries))
    else:
        sums, queries = matrix_of_all.sums.sum(axis=1), int(matrix_of_all.sizes.sum())
        pooled = sums / (SCALE * queries) if unit == "group" else None
        evidence = replace(evidence_from_matrix(matrix_of_all.values), pooled=pooled)
    return replace(evidence, ends=ends)


def of_search(table: pl.DataFrame, risk: str, config: str, claim: Claim, base: pl.DataFrame | None = None) -> Evidence:
    """Losses of one configuration on search units, in the form of calibration evidence. base: the base model's rows."""
    searched = matrix(table, risk=risk, split="search", configs=[config], unit=claim.unit[risk])
    if risk in claim.relative and base is not None:
        own = matrix(base, risk=risk, split="search", configs=[BASE], unit=claim.unit[risk])
        return _of_share(searched, own, risk, claim)
    return _by_queries(searched, risk, claim) if claim.unit[risk] == WEIGHTED else evidence_from_matrix(searched.values)


def _of_share(measured: LossMatrix, base: LossMatrix, risk: str, claim: Claim) -> Evidence:
    """Losses with the base model's absences on the same units."""
    if measured.units != base.units or not np.array_equal(measured.sizes, base.sizes):
        raise InputError(
            f"{risk}: the base model was not measured on the queries of the others; measure it on the same"
        )
    score = SCALE * int(base.sizes.sum()) - int(base.sums.sum())
    shares = shares_lost(measured.sums.sum(axis=1), score)
    if claim.unit[risk] == WEIGHTED:
        return replace(_by_queries(measured, risk, claim), absences=base.sums[0], pooled=shares)
    of_units = replace(evidence_from_matrix(measured.values), absences=base.values[0].astype(np.int64))
    return replace(of_units, pooled=shares if claim.unit[risk] == "group" else None)


def shares_lost(lost: NDArray[np.int64], score: int) -> NDArray[np.float64]:
    """(m,) fractions of a score that were lost, at most 1; 1 where the score is 0."""
    return np.minimum(1.0, lost / score) if score > 0 else np.ones(len(lost))


def _by_queries(measured: LossMatrix, risk: str, claim: Claim) -> Evidence:
    """Sums of losses per group, for a claim about the mean over queries."""
    if (most := int(measured.sizes.max())) > claim.largest[risk]:
        raise InputError(
            f"{risk}: a group has {most} queries, more than the {claim.largest[risk]} that were planned for"
        )
    return replace(evidence_from_matrix(measured.sums), sizes=measured.sizes)
