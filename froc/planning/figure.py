"""The figure of a plan: power against units. Torch-free; matplotlib is imported when it is drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from froc.planning.loss_distributions import zero_one
from froc.planning.pass_probability import FirstCandidate
from froc.planning.result import PlanResult
from froc.reporting.style import COLOURS, GREY, INK, STYLE

CURVE_POINTS = 240


def save(plan: PlanResult, path: Path) -> None:
    """Write the picture as PNG."""
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn(plan).savefig(path, metadata={"Software": None})


def drawn(plan: PlanResult) -> Any:
    """One panel per group of risks with the same plan, one curve per risk level; for designs, probabilities as bars."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        groups = list(dict.fromkeys(row.risks for row in plan.ladder))
        figure = Figure(figsize=(5.4 * len(groups) + 0.4 if groups else 8.4, 4.0), dpi=150, layout="constrained")
        panels = figure.subplots(1, max(1, len(groups)), squeeze=False)[0]
        for axes, risks in zip(panels, groups, strict=False):
            _panel(axes, plan, risks)
        if not groups:
            _designs(panels[0], plan)
    return figure


def _panel(axes: Any, plan: PlanResult, risks: tuple[str, ...]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    rows = [row for row in plan.ladder if row.risks == risks]
    units = np.array([row.units for row in rows])
    for place, level in enumerate(plan.risks[risks[0]]):
        power = np.array([row.chances[place].value for row in rows])
        errors = [2 * row.chances[place].error for row in rows]
        colour, counted = COLOURS[place % len(COLOURS)], rows[0].lost is not None
        axes.errorbar(units, power, yerr=errors if any(errors) else None, fmt="o" if counted else "o-", ms=4, lw=1.4,
                      capsize=2, color=colour, label=f"risk {level:.3g}", zorder=3)  # fmt: skip
        if counted:
            axes.plot(*_saw(plan, risks[0], level, units), color=colour, lw=1.0, zorder=2)
    wanted = plan.power ** (1 / len(plan.claim.budget))
    axes.axhline(wanted, color=INK, lw=1, ls="--")
    axes.annotate(f"wanted {wanted:.3g}", (0.0, wanted), xycoords=("axes fraction", "data"), xytext=(3, 3),
                  textcoords="offset points")  # fmt: skip
    for place, row in enumerate(row for row in rows if row.note):
        axes.axvline(row.units, color=GREY, lw=0.8, ls=":", zorder=1)
        height = (0.02, 0.36)[place % 2]
        axes.annotate(f"{row.note}: {row.units}", (row.units, height), rotation=90, ha="right", va="bottom",
                      color=INK, fontsize=8)  # fmt: skip
    axes.set_ylim(0.0, 1.05)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel(f"calibration units ({plan.claim.unit[risks[0]]})")
    axes.set_ylabel("power")
    axes.legend(loc="upper left", bbox_to_anchor=(0.1, 0.84), frameon=False)
    budget = plan.claim.budget[risks[0]]
    axes.set_title(f"{', '.join(risks)} at most {budget:g}: chance that the first of {plan.candidates}\n"
                   f"candidates passes ({plan.claim.bound[risks[0]]}, {plan.claim.procedure})", loc="left", fontsize=9)  # fmt: skip


def _saw(
    plan: PlanResult, risk: str, level: float, units: np.ndarray[Any, np.dtype[Any]]
) -> tuple[list[int], list[float]]:
    """Power at all numbers of units in between, a sawtooth: it falls until one more loss is allowed."""
    first, distribution = FirstCandidate(plan.claim, risk, plan.candidates), zero_one(level)
    between = sorted({round(float(n)) for n in np.geomspace(units[0], units[-1], CURVE_POINTS)})
    return between, [first.chance(distribution, n).value for n in between]


def _designs(axes: Any, plan: PlanResult) -> None:
    from froc.planning.design_search import MAX_SHOWN

    shown = plan.designs[:MAX_SHOWN]
    places = np.arange(len(shown))
    axes.barh(
        places,
        [design.any.value for design in shown],
        xerr=[2 * design.any.error for design in shown],
        color=COLOURS[0],
        alpha=0.8,
    )
    axes.set_yticks(places, [f"{design.procedure}, {design.bound}, share {design.share:g}" for design in shown])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("chance to certify something right, ± two standard errors")
    axes.set_title("Designs by simulation on search losses", loc="left", fontsize=9)
