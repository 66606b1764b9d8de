"""The figure of a comparison: what is left at equal utility, fronts with bands, budgets that could be met. Torch-free."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from froc.comparison.document import BEFORE, front, ordered
from froc.data.task import FORGETTING, UTILITY
from froc.reporting.style import GREY, INK, MARKERS, METHOD_COLOURS, STYLE


def draw(folder: Path, document: Mapping[str, Any]) -> list[Path]:
    """Write `comparison.png` and `comparison.svg`; return their paths."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    # a fixed salt makes the SVG's ids reproducible
    settings: Any = {**STYLE, "svg.hashsalt": "froc"}
    written = []
    with mpl.rc_context(settings):
        figure = Figure(figsize=(12.6, 4.6), dpi=150, layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.05, 1.1, 1.0))
        styles = _styles(document)
        _left(left, document, styles)
        _fronts(middle, document, styles)
        _budgets(right, document, styles)
        figure.suptitle(
            f"Methods at equal utility, {document['task']['name']}: bars, bands and steps hold together with confidence "
            f"{document['confidence']:.0%} in each panel", x=0.01, ha="left", fontsize=10,
        )  # fmt: skip
        for kind, more in (("png", {"Software": None}), ("svg", {"Date": None})):
            written.append(folder / f"comparison.{kind}")
            figure.savefig(written[-1], metadata=more)
    return written


def _styles(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """method -> (colour, marker), the same in every panel."""
    return {
        m: (METHOD_COLOURS[k % len(METHOD_COLOURS)], MARKERS[k % len(MARKERS)])
        for k, m in enumerate(document["fronts"])
    }


def _left(axes: Any, document: Mapping[str, Any], styles: Mapping[str, tuple[str, str]]) -> None:
    """A row per method: hollow before calibration, filled at each level, with its interval."""
    stages = ordered(document["stages"])
    order = document["ranking"][stages[min(1, len(stages) - 1)]]["methods"]
    for row, method in enumerate(order):
        colour, mark = styles[method]
        for place, stage in enumerate(stages):
            interval = document["stages"][stage][method][FORGETTING]
            y = row + 0.22 * (place - (len(stages) - 1) / 2)
            axes.errorbar(interval["mean"], y, xerr=[[max(0.0, interval["mean"] - interval["lower"])], [max(0.0, interval["upper"] - interval["mean"])]],
                          fmt=mark, ms=5, color=colour, mfc="white" if stage == BEFORE else colour, lw=1, capsize=2)  # fmt: skip
            label = stage if stage == BEFORE else f"{float(stage):.0%}"
            axes.annotate(
                label,
                (interval["upper"], y),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=6.5,
                va="center",
                color=GREY,
            )
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlim(left=-0.02)
    axes.set_xlabel("forgetting risk: what is left")
    axes.set_title(
        "Left before calibration (hollow) and\nat each level of retained performance", loc="left", fontsize=9
    )


def _fronts(axes: Any, document: Mapping[str, Any], styles: Mapping[str, tuple[str, str]]) -> None:
    """Means of each method's points as a staircase, with both intervals; points of the union front are ringed."""
    union = set(document["union"])
    for method, points in document["fronts"].items():
        colour, mark = styles[method]
        means = np.array([[p[risk]["mean"] for risk in (FORGETTING, UTILITY)] for p in points])
        # points that are dominated on these queries are shown, but not part of the line
        line = sorted(means[front(means)].tolist())
        axes.step([x for x, _ in line], [y for _, y in line], where="post", color=colour, lw=1.2)
        axes.plot(means[:, 0], means[:, 1], mark, color=colour, ms=5, label=method)
        for p, (across, up) in zip(points, means, strict=True):
            axes.hlines(up, p[FORGETTING]["lower"], p[FORGETTING]["upper"], color=colour, lw=0.8, alpha=0.35)
            axes.vlines(across, p[UTILITY]["lower"], p[UTILITY]["upper"], color=colour, lw=0.8, alpha=0.35)
            if p["point"] in union:
                axes.plot(across, up, "o", ms=10, mfc="none", mec=INK, mew=0.8)
    axes.plot([], [], "o", ms=10, mfc="none", mec=INK, mew=0.8, ls="", label="union front")
    for risk, limit in ((FORGETTING, axes.set_xlim), (UTILITY, axes.set_ylim)):
        edge = min(
            1.0,
            1.05 * max(p[risk]["upper"] for points_of_method in document["fronts"].values() for p in points_of_method),
        )
        limit(-0.02 * edge, 1.02 * edge)
    axes.set_xlabel("forgetting risk")
    axes.set_ylabel("utility risk")
    axes.legend(frameon=False, fontsize=7.5)
    axes.set_title("Fronts, mixes with the base model included", loc="left", fontsize=9)


def _budgets(axes: Any, document: Mapping[str, Any], styles: Mapping[str, tuple[str, str]]) -> None:
    """Staircases: a method meets the budgets above and to the right of its line."""
    for method, region in document["region"].items():
        colour, _ = styles[method]
        steps = region["steps"]
        axes.step(
            [u for u, _ in steps] + [1.0], [f for _, f in steps] + [steps[-1][1]], where="post", color=colour, lw=1.4
        )
        axes.plot(steps[0][0], steps[0][1], styles[method][1], color=colour, ms=5)
    axes.set_xlim(0, 0.5)
    axes.set_ylim(0, 1)
    axes.set_xlabel("utility budget")
    axes.set_ylabel("smallest forgetting budget")
    axes.set_title("Budgets that each method could have met", loc="left", fontsize=9)
