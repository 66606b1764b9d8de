"""Figures of a run: the risk landscape, the Pareto front with budgets and CURs, and FROC's score of all trials.

Torch-free; matplotlib is imported when one is drawn. Shapes and labels carry the meaning beside the colours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from froc.reporting.froc_score import draw_score
from froc.reporting.style import GREEN, GREY, INK, MARKERS, RED, STYLE
from froc.risk.froc_score import Weighing


def draw(
    folder: Path,
    trials: Sequence[Mapping[str, Any]],
    certificate: Mapping[str, Any],
    weighing: Mapping[str, float] | None = None,
) -> list[Path]:
    """Write `landscape.png` and `pareto.png`, and `froc_score.png` where trials carry averages; return their paths.

    trials: lines of trials.jsonl. certificate: certificate.json. weighing: the plan's, where it names one.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    done = [line for line in trials if line["search"]]
    scored = [line for line in done if line.get("averages")]
    written = []
    with mpl.rc_context(STYLE):
        for name, size, paint in (("landscape", (9.0, 4.6), _landscape), ("pareto", (7.4, 5.6), _pareto)):
            figure = Figure(figsize=size, dpi=150, layout="constrained")
            paint(figure, done, certificate)
            path = folder / f"{name}.png"
            figure.savefig(path, metadata={"Software": None})
            written.append(path)
        if scored:
            written.append(folder / "froc_score.png")
            figure = Figure(figsize=(10.6, 4.8), dpi=150, layout="constrained")
            draw_score(figure, scored, certificate, Weighing(**(weighing or {})))
            figure.savefig(written[-1], metadata={"Software": None})
    return written


def _landscape(figure: Any, done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> None:
    """One row per risk, one dot per configuration in order of trial, grouped by method."""
    # further risks are measured on candidates alone
    budget = dict(_measured(done, certificate))
    order = sorted(done, key=lambda line: (line["method"], line["trial"]))
    certified, chosen = set(certificate["certified"]), certificate["chosen"]
    panels = figure.subplots(len(budget), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (risk, alpha) in zip(panels, budget.items(), strict=True):
        axes.axhspan(0, alpha, color=GREEN, alpha=0.08, lw=0)
        axes.axhline(alpha, color=INK, lw=1, ls="--")
        axes.annotate(f"budget {alpha:g}", (1.0, alpha), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        for place, line in enumerate(order):
            ok = line["config"] in certified
            colour = GREEN if ok else RED if line["search"][risk] > alpha else GREY
            axes.vlines(place, 0, line["search"][risk], color=colour, lw=1, alpha=0.5)
            axes.plot(place, line["search"][risk], "D" if ok else "o", color=colour, ms=9 if line["config"] == chosen else 5,
                      mec=INK if line["config"] == chosen else colour)  # fmt: skip
        axes.set_ylabel(f"{risk}\n(search loss)")
        axes.set_ylim(-0.02, 1.02)
    start = 0
    for method in dict.fromkeys(line["method"] for line in order):
        count = sum(line["method"] == method for line in order)
        for axes in panels:
            axes.axvline(start - 0.5, color=GREY, lw=0.4)
        panels[-1].text(start + (count - 1) / 2, -0.1, method, ha="center", va="top", rotation=20)
        start += count
    panels[-1].set_xticks([])
    panels[0].set_title(f"Risk landscape: {len(done)} configurations, diamonds are certified, the outlined one is chosen",
                        loc="left", fontsize=10)  # fmt: skip


def _measured(done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Budgets of the risks that trials measured; of all single ones where there was no trial."""
    wanted = done[0]["search"] if done else certificate["unit"]
    return [(risk, alpha) for risk, alpha in certificate["budget"].items() if risk in wanted]


def _pareto(figure: Any, done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> None:
    """Search losses of all trials, and for each candidate its calibration risk with a bar up to its simultaneous CUR."""
    (across, alpha), (up, beta) = _measured(done, certificate)[:2]
    axes = figure.subplots()
    axes.axhline(beta, color=INK, lw=1, ls="--")
    axes.axvline(alpha, color=INK, lw=1, ls="--")
    axes.fill_between([0, alpha], 0, beta, color=GREEN, alpha=0.08, lw=0)
    methods = list(dict.fromkeys(line["method"] for line in done))
    for method, mark in zip(methods, MARKERS * 3, strict=False):
        lines = [line for line in done if line["method"] == method]
        axes.plot(
            [s["search"][across] for s in lines],
            [s["search"][up] for s in lines],
            mark,
            ms=4,
            color=GREY,
            alpha=0.7,
        )
        axes.plot([], [], mark, ms=5, color=INK, ls="", label=method)
    front = _front([(line["search"][across], line["search"][up]) for line in done])
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=GREY, lw=1)
    mark_of = dict(zip(methods, MARKERS * 3, strict=False))
    for candidate in certificate["candidates"]:
        x, y = candidate["empirical"][across], candidate["empirical"][up]
        right, top = candidate["cur"][across]["simultaneous"], candidate["cur"][up]["simultaneous"]
        colour = GREEN if candidate["certified"] else RED
        axes.errorbar(x, y, xerr=[[0], [max(0.0, right - x)]], yerr=[[0], [max(0.0, top - y)]], fmt=mark_of.get(candidate["method"], "o"),
                      ms=6, color=colour, lw=1, capsize=2)  # fmt: skip
        if candidate["config"] == certificate["chosen"]:
            axes.plot(x, y, "o", ms=15, mfc="none", mec=GREEN, mew=1.5)
            label = (
                f"chosen: {candidate['config']} ({candidate['method']})"
                if candidate["method"]
                else f"chosen: {candidate['config']}"
            )
            axes.plot([], [], "o", ms=9, mfc="none", mec=GREEN, mew=1.5, ls="", label=label)
    edge = max([0.25, 2.5 * alpha, 2.5 * beta, *(min(1.0, 1.1 * max(c["cur"][across]["simultaneous"], c["cur"][up]["simultaneous"]))
                                                  for c in certificate["candidates"])])  # fmt: skip
    axes.set_xlim(-0.02 * edge, edge)
    axes.set_ylim(-0.02 * edge, edge)
    outside = sum(line["search"][across] > edge or line["search"][up] > edge for line in done)
    axes.set_xlabel(f"{across} risk   (dashed: budget {alpha:g})")
    axes.set_ylabel(f"{up} risk   (dashed: budget {beta:g})")
    # below the axes, where it hides no point
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False)
    axes.set_title("Green: certified; red: tested, not certified; bars reach to the CUR\n"
                   f"Grey: search losses of all trials ({outside} beyond the frame)", loc="left", fontsize=9)  # fmt: skip


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front
