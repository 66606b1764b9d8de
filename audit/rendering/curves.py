"""Curves and counts of the appendix: bounds under shift, classes of losses, sensitivity."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import polars as pl

from froc.audit.canonical_json import exact
from froc.audit.rendering import figures
from froc.audit.rendering.numbers import percent, up
from froc.audit.rendering.summary import ordered
from froc.audit.report import Facts
from froc.loss_table import SCALE
from froc.risk.certificate import bounds
from froc.risk.ratios import certifies_ratio

FEWEST = 10
"""Smallest number of queries in a class of losses, so that it reveals no single one."""


ENOUGH = 50
"""Number of queries below which no distribution is shown."""


LEVELS = (0.8, 0.95, 0.99)
"""Confidences at which the result is shown besides its own."""


CURVE = 33
"""Number of points of a curve."""


def shifted(bound: Decimal, rho: Decimal) -> Decimal:
    """`froc.risk.shift.shifted` by square roots only, which all machines round alike."""
    with localcontext(prec=28):
        keep = 1 - rho * rho
        if bound >= keep * keep:
            return Decimal(1)
        return (bound.sqrt() * keep + (1 - bound).sqrt() * (1 - keep * keep).sqrt()) ** 2


def _unshifted(bound: Decimal, rho: Decimal) -> Decimal:
    """The bound without shift whose shifted value is this one."""
    with localcontext(prec=28):
        keep = 1 - rho * rho
        root = bound.sqrt() * keep - (1 - bound).sqrt() * (1 - keep * keep).sqrt()
        return max(Decimal(0), root) ** 2


def _curves(
    report: Mapping[str, Any], subject: Mapping[str, Any], budget: Mapping[str, Decimal]
) -> list[dict[str, Any]]:
    certificate = report["certificate"]
    edge = max([Decimal("0.05"), *(Decimal(r or 0) * Decimal("1.5") for r in subject["robust_radius"].values())])
    edge = min(Decimal(1), edge.quantize(Decimal("0.01")))
    curves = []
    for risk, alpha in budget.items():
        parts = {risk: Decimal(1)}
        if certifies_ratio(certificate, risk):
            continue
        if risk not in certificate["unit"]:
            parts = {name: Decimal(weight) for name, weight in certificate["weights"].items()}
        plain = {
            name: _unshifted(Decimal(subject["cur"][name]["simultaneous"]), Decimal(certificate["radius"]))
            for name in parts
        }
        rhos = [edge * i / (CURVE - 1) for i in range(CURVE)]
        curve = [(rho, sum((w * shifted(plain[name], rho) for name, w in parts.items()), Decimal(0))) for rho in rhos]
        radius = subject["robust_radius"][risk]
        curves.append(
            {
                "risk": risk,
                "picture": figures.shift(risk, curve, alpha, None if radius is None else Decimal(radius)),
                "at": [up(str(bound)) for _, bound in curve[:: (CURVE - 1) // 4]],
                "rhos": [f"{rho.normalize():f}" for rho, _ in curve[:: (CURVE - 1) // 4]],
                "radius": radius,
                "budget": percent(str(alpha)),
            }
        )
    return curves


def merged(losses: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first thousandth, last, queries) of classes with at least FEWEST queries: 0, hundreds and 1000, merged upwards.

    A remainder at the end joins the class below. Empty where there are too few queries to show any.
    """
    if len(losses) < ENOUGH:
        return []
    filled = Counter(0 if loss == 0 else 11 if loss == SCALE else (loss - 1) // 100 + 1 for loss in losses)
    low, number, classes = 0, 0, list[tuple[int, int, int]]()
    for place in sorted(filled):
        first = 0 if place == 0 else SCALE if place == 11 else 100 * (place - 1) + 1
        last = 0 if place == 0 else SCALE if place == 11 else min(SCALE - 1, 100 * place)
        low, number = (low, number + filled[place]) if number else (first, filled[place])
        if number >= FEWEST:
            classes.append((low, last, number))
            number = 0
    if number:
        low, _, below = classes.pop()
        classes.append((low, last, below + number))
    return classes


def _classes(facts: Facts, config: str) -> list[dict[str, Any]]:
    rows = facts.losses.filter(pl.col("config") == config, pl.col("split") != "search")
    classes = []
    for risk in ordered(facts.plan.task.units):
        losses = rows.filter(pl.col("risk") == risk)["loss"].to_list()
        groups = merged(losses)
        classes.append(
            {
                "risk": risk,
                "n": len(losses),
                "some": groups,
                "picture": figures.classes(risk, groups) if groups else None,
            }
        )
    return classes


def sensitivity(facts: Facts, report: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds of the reported configuration with losses a thousandth lower and higher, and at other confidences.

    Risks whose losses are all 0 or 1 stay unchanged: they cannot be off by a thousandth.
    """
    config, claim = report["config"], replace(facts.plan.claim, opening=report["opening"])
    losses = facts.losses.filter(pl.col("config") == config)
    cases = {
        "1‰ lower": (_moved(losses, -1), claim),
        "as signed": (losses, claim),
        "1‰ higher": (_moved(losses, 1), claim),
    }
    cases |= {
        f"at {percent(str(level))}": (losses, replace(claim, confidence=level))
        for level in LEVELS
        if level != claim.confidence
    }
    columns = []
    weights = {candidate.config: candidate.weight for candidate in facts.seal.candidates}
    for name, (table, variation) in cases.items():
        printed = exact(bounds(table, config, weights, variation, facts.seal.units, facts.control))
        within = all(
            Decimal(printed[risk]) <= Decimal(alpha) for risk, alpha in report["certificate"]["budget"].items()
        )
        columns.append({"name": name, "bounds": printed, "within": within})
    return {"columns": columns, "risks": ordered(report["certificate"]["budget"])}


def _moved(losses: pl.DataFrame, by: int) -> pl.DataFrame:
    binary = losses.group_by("risk").agg((pl.col("loss") % SCALE == 0).all().alias("binary"))
    fixed = binary.filter(pl.col("binary"))["risk"].to_list()
    moved = (pl.col("loss") + by).clip(0, SCALE).cast(losses.schema["loss"])
    return losses.with_columns(loss=pl.when(pl.col("risk").is_in(fixed)).then(pl.col("loss")).otherwise(moved))
