"""The figure of a monitored stream: e-values and running means. Torch-free; matplotlib is imported when it is drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from froc.monitoring.state import StreamStatus
from froc.reporting.style import COLOURS, INK, STYLE

LOW = 1e-2
"""Smallest e-value that is drawn."""


def save(monitored: StreamStatus, path: Path) -> None:
    """Write the picture as PNG."""
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn(monitored).savefig(path, metadata={"Software": None})


def drawn(monitored: StreamStatus) -> Any:
    """Left: e-values on a logarithmic axis and the alarm's threshold. Right: mean losses so far and budgets."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, (risk, risk_course) in enumerate(monitored.state.risks.items()):
            colour = COLOURS[place % len(COLOURS)]
            course = np.array(list(risk_course.course), dtype=np.float64).reshape(-1, 3)
            left.plot(course[:, 0], course[:, 2] / np.log(10), color=colour, lw=1.4, label=risk)
            right.plot(course[:, 0], course[:, 1], color=colour, lw=1.4, label=f"{risk}, mean so far")
            right.axhline(
                risk_course.budget, color=colour, lw=1, ls="--", label=f"{risk}, budget {risk_course.budget:g}"
            )
            if risk_course.alarm is not None:
                left.axvline(
                    risk_course.alarm, color=colour, lw=1, ls=":", label=f"{risk}, alarm at {risk_course.alarm}"
                )
        threshold = float(np.log10(monitored.threshold))
        left.axhline(threshold, color=INK, lw=1, ls="--")
        left.annotate(f"alarm at {monitored.threshold:g}", (0.0, threshold), xycoords=("axes fraction", "data"),
                      xytext=(3, 2), textcoords="offset points")  # fmt: skip
        top = max([threshold, *(risk_course.largest / np.log(10) for risk_course in monitored.state.risks.values())])
        left.set_ylim(np.log10(LOW), 1.15 * top + 0.3)
        left.yaxis.set_major_locator(MaxNLocator(integer=True))
        left.yaxis.set_major_formatter(lambda power, _: f"$10^{{{power:.0f}}}$")
        left.set_ylabel("e-value")
        right.set_ylim(bottom=0.0)
        right.set_ylabel("loss")
        left.set_title(f"{monitored.state.config}: evidence that a budget is exceeded", loc="left", fontsize=9)
        right.set_title("mean loss so far (no bound)", loc="left", fontsize=9)
        for axes in (left, right):
            axes.set_xlabel("losses so far")
            axes.legend(loc="best", frameon=False, fontsize=8)
    return figure
