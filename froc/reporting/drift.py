"""A figure of a run: how far hidden states moved, against both risks, per sealed configuration. A diagnostic."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from froc.reporting.style import GREEN, GREY, INK, MARKERS, STYLE

PANELS = (("forgetting", "forgotten prompts"), ("utility", "retained prompts"))


def draw_drift(path: Path, document: Mapping[str, Any], certificate: Mapping[str, Any]) -> Path:
    """Write the figure. document: `drift.json` (`froc.search.drift`); certificate: certificate.json."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.4), dpi=150, layout="constrained")
        panels = figure.subplots(1, 2)
        rows, certified = document["configurations"], set(certificate["certified"])
        marks = dict(zip(dict.fromkeys(row["method"] for row in rows), MARKERS * 3, strict=False))
        for axes, (risk, prompts) in zip(panels, PANELS, strict=True):
            _panel(axes, rows, marks, risk, certified, certificate)
            axes.set_xlabel(f"relative distance of the last states\n{prompts}, n = {document['queries'][risk]}")
            axes.set_ylabel(f"{risk} risk on search queries")
        for method, mark in marks.items():
            panels[0].plot([], [], mark, color=INK, ms=5, ls="", label=method)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
        figure.suptitle(
            "Diagnostic, nothing is certified by it: how far unlearning moved hidden states, and what is left or lost "
            "(green: certified, cross: base model)", fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        figure.savefig(path, metadata={"Software": None})
    return path


def _panel(axes: Any, rows: Any, marks: Mapping[str, str], risk: str, certified: set[str], certificate: Any) -> None:
    if risk in certificate["budget"]:
        axes.axhline(certificate["budget"][risk], color=INK, lw=1, ls="--")
    before = certificate.get("base", {}).get(risk)
    if before is not None:
        axes.plot(0, before["before"] if before["control"] == "exceeds" else 0, "x", color=INK, ms=7)
    for row in rows:
        if risk in row["search"]:
            colour = GREEN if row["config"] in certified else GREY
            axes.plot(
                row["drift"][risk]["relative_l2"],
                row["search"][risk],
                marks[row["method"]],
                color=colour,
                ms=6,
                mec=INK,
                mew=0.5,
            )
    axes.set_xlim(left=-0.02 * max(1.0, axes.get_xlim()[1]))
    axes.set_ylim(bottom=-0.02)
