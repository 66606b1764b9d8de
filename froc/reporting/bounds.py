"""Figures with lines: how bounds grow with distribution shift, and how removals add up over a chain of runs.

Torch-free; matplotlib is imported when one is drawn.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from froc.bounds import hoeffding_bentkus
from froc.reporting.style import GREEN, GREY, INK, STYLE
from froc.risk.ratios import certifies_ratio
from froc.risk.shift import shifted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_POINTS = 121


def draw_shift(path: Path, certificate: Mapping[str, Any]) -> None:
    """Write one panel per risk: CUR within radius rho of every candidate, the budget, and robust radii as dots.

    certificate: certificate.json; its simultaneous CURs at its own radius are followed from there on. For the chosen
    candidate C-RAG's published bound is drawn beside ours, from the same mean, n and error level.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    risks = [risk for risk in certificate["budget"] if not certifies_ratio(certificate, risk)]
    if not risks:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(risks) + 0.4, 3.9), dpi=150, layout="constrained")
        panels = figure.subplots(1, len(risks), squeeze=False)[0]
        for axes, risk in zip(panels, risks, strict=True):
            _panel(axes, risk, certificate)
        figure.savefig(path, metadata={"Software": None})


def bounds(certificate: Mapping[str, Any]) -> "Figure":
    """One panel per risk: every candidate's measured mean (dot) and simultaneous CUR (end of its line), and the budget."""
    from matplotlib.figure import Figure

    risks, rows = list(certificate["budget"]), certificate["candidates"]
    figure = Figure(figsize=(3.2 * len(risks) + 1.6, 0.28 * len(rows) + 1.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(risks), squeeze=False, sharey=True)[0]
    for axes, risk in zip(panels, risks, strict=True):
        for place, row in enumerate(rows):
            colour = GREEN if row["certified"] else GREY
            mean, upper = row["empirical"][risk], row["cur"][risk]["simultaneous"]
            axes.plot(
                [mean, upper], [place, place], color=colour, lw=2.4 if row["config"] == certificate["chosen"] else 1.2
            )
            axes.plot(mean, place, "o", ms=4, color=colour)
            axes.plot(upper, place, "|", ms=9, color=colour)
        axes.axvline(certificate["budget"][risk], color=INK, lw=1, ls="--")
        axes.set_title(f"{risk}, budget {certificate['budget'][risk]:g}", loc="left", fontsize=9)
        axes.set_xlim(left=0.0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [row["config"] for row in rows], fontsize=8)
    panels[0].invert_yaxis()
    figure.supxlabel("risk: measured (dot) and at most (line); green is certified, thick chosen", fontsize=8)
    return figure


def _panel(axes: Any, risk: str, certificate: Mapping[str, Any]) -> None:
    budget, rows = certificate["budget"][risk], certificate["candidates"]
    radii = [row["robust_radius"][risk] or 0.0 for row in rows]
    edge = min(1.0, 1.35 * max([0.05, certificate["radius"], *radii]))
    rho = np.linspace(0.0, edge, CURVE_POINTS)
    for row in rows:
        is_chosen = row["config"] == certificate["chosen"]
        style = {"color": GREEN if row["certified"] else GREY, "lw": 2.2 if is_chosen else 1.0}
        axes.plot(rho, _curve(row, risk, certificate, rho), zorder=3 if is_chosen else 2, **style)
        if row["robust_radius"][risk] is not None:
            axes.plot(row["robust_radius"][risk], budget, "o", ms=7 if is_chosen else 4, color=style["color"], zorder=4)
    axes.axhline(budget, color=INK, lw=1, ls="--")
    axes.annotate(f"budget {budget:g}", (1.0, budget), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set_xlim(0.0, edge)
    axes.set_ylim(0.0, min(1.0, max(4.0 * budget, 0.2)))
    _compare(axes, risk, rows, certificate, rho)
    axes.set_xlabel("Hellinger radius of shift")
    axes.set_ylabel(f"{risk}: risk at most")
    axes.set_title(f"{risk} under shift\ngreen: certified, thick: chosen, dots: robust radius", loc="left", fontsize=9)


def _plain(row: Mapping[str, Any], risk: str, certificate: Mapping[str, Any]) -> float:
    """The CUR without shift: what grows to the printed one at the certificate's radius."""
    angle = np.arcsin(np.sqrt(row["cur"][risk]["simultaneous"])) - np.arccos(1.0 - certificate["radius"] ** 2)
    return float(np.sin(max(0.0, angle)) ** 2)


def _curve(
    row: Mapping[str, Any], risk: str, certificate: Mapping[str, Any], rho: np.ndarray[Any, np.dtype[np.float64]]
) -> Sequence[float]:
    """The bound along the radii; of the combined risk, the weighted sum of its parts' bounds."""
    parts = {risk: 1.0} if risk in certificate["unit"] else certificate["weights"]
    plain = {name: _plain(row, name, certificate) for name in parts}
    return [sum(w * float(shifted(plain[name], float(radius))) for name, w in parts.items()) for radius in rho]


def _compare(
    axes: Any,
    risk: str,
    rows: Sequence[Mapping[str, Any]],
    certificate: Mapping[str, Any],
    rho: np.ndarray[Any, np.dtype[np.float64]],
) -> None:
    """C-RAG's bound of the chosen candidate, else of the first; for 0-1 losses of that mean, its kindest case."""
    row = next((row for row in rows if row["config"] == certificate["chosen"]), rows[0] if rows else None)
    if row is None or certificate["population"].get(risk) != "queries" or row["n"][risk] < 2:
        return
    mean, level = row["empirical"][risk], certificate["level"] / (len(rows) * len(certificate["unit"]))
    bounds = [crag(mean, mean * (1.0 - mean), row["n"][risk], float(radius), level) for radius in rho]
    axes.plot(rho, bounds, color=INK, lw=1, ls=":", zorder=1)
    axes.annotate(
        "C-RAG's bound", (0.0, min(bounds[0], 0.95 * axes.get_ylim()[1])), xytext=(6, -13), textcoords="offset points"
    )


def crag(mean: float, variance: float, n: int, rho: float, delta: float) -> float:
    """C-RAG's conformal generation risk under shift (Kang et al. 2402.03181, by its published code).

    The mean is moved for the shift and for sampling, and then bounded by Hoeffding-Bentkus once more, at delta again:
    a claim at more than delta in all, and far above the risk all the same. variance: biased, as its code has it.
    """
    keep, spread = 1.0 - rho * rho, 2.0 - rho * rho
    moved = mean + rho**2 * spread * (1.0 - mean) + 2.0 * rho * keep * math.sqrt(spread) * math.sqrt(variance)
    inner = keep / math.sqrt(2.0 * n) + 2.0 * rho * math.sqrt(2.0 * spread) / math.sqrt(n - 1)
    moved += keep * inner * math.sqrt(math.log(4.0 / delta)) + math.sqrt(math.log(8.0 / delta) / (2.0 * n))
    moved = min(1.0, moved)
    whole = np.array([math.ceil(n * moved - 1e-9)])
    return float(hoeffding_bentkus.upper_from_mean(np.array([moved]), whole, n, delta)[0])
