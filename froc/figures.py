"""Pictures of a run: the risk landscape over configurations, and the Pareto front with budgets and CURs.

Torch-free; matplotlib is imported when a picture is drawn. Shapes and labels carry the meaning beside the colours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GREEN, RED, GREY, INK = "#1b7f4d", "#c2452d", "#9aa3ab", "#20262c"
MARKS = "osD^vP*Xh<>p"


def draw(folder: Path, trials: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> list[Path]:
    """Write `landscape.png` and `pareto.png`; return their paths.

    trials: lines of trials.jsonl. certificate: certificate.json.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    done = [line for line in trials if line["search"]]
    written = []
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}):
        for name, size, paint in (("landscape", (9.0, 4.6), _landscape), ("pareto", (7.4, 5.6), _pareto)):
            figure = Figure(figsize=size, dpi=150, layout="constrained")
            paint(figure, done, certificate)
            path = folder / f"{name}.png"
            figure.savefig(path, metadata={"Software": None})
            written.append(path)
    return written


def _landscape(figure: Any, done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> None:
    """One row per risk, one dot per configuration in order of trial, grouped by method."""
    budget = certificate["budget"]
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


def _pareto(figure: Any, done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> None:
    """Search losses of all trials, and for each candidate its calibration risk with a bar up to its simultaneous CUR."""
    (across, alpha), (up, beta) = list(certificate["budget"].items())[:2]
    axes = figure.subplots()
    axes.axhline(beta, color=INK, lw=1, ls="--")
    axes.axvline(alpha, color=INK, lw=1, ls="--")
    axes.fill_between([0, alpha], 0, beta, color=GREEN, alpha=0.08, lw=0)
    methods = list(dict.fromkeys(line["method"] for line in done))
    for method, mark in zip(methods, MARKS * 3, strict=False):
        some = [line for line in done if line["method"] == method]
        axes.plot(
            [s["search"][across] for s in some],
            [s["search"][up] for s in some],
            mark,
            ms=4,
            color=GREY,
            alpha=0.7,
        )
        axes.plot([], [], mark, ms=5, color=INK, ls="", label=method)
    front = _front([(line["search"][across], line["search"][up]) for line in done])
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=GREY, lw=1)
    mark_of = dict(zip(methods, MARKS * 3, strict=False))
    for one in certificate["candidates"]:
        x, y = one["empirical"][across], one["empirical"][up]
        right, top = one["cur"][across]["simultaneous"], one["cur"][up]["simultaneous"]
        colour = GREEN if one["certified"] else RED
        axes.errorbar(x, y, xerr=[[0], [max(0.0, right - x)]], yerr=[[0], [max(0.0, top - y)]], fmt=mark_of.get(one["method"], "o"),
                      ms=6, color=colour, lw=1, capsize=2)  # fmt: skip
        if one["config"] == certificate["chosen"]:
            axes.plot(x, y, "o", ms=15, mfc="none", mec=GREEN, mew=1.5)
            axes.annotate(f"chosen: {one['config']} ({one['method']})", (x, y), xytext=(16, 90), textcoords="offset points",
                          color=GREEN, arrowprops={"arrowstyle": "-", "color": GREEN})  # fmt: skip
    edge = max([0.25, 2.5 * alpha, 2.5 * beta, *(min(1.0, 1.1 * max(c["cur"][across]["simultaneous"], c["cur"][up]["simultaneous"]))
                                                  for c in certificate["candidates"])])  # fmt: skip
    axes.set_xlim(-0.02 * edge, edge)
    axes.set_ylim(-0.02 * edge, edge)
    outside = sum(line["search"][across] > edge or line["search"][up] > edge for line in done)
    axes.set_xlabel(f"{across} risk   (dashed: budget {alpha:g})")
    axes.set_ylabel(f"{up} risk   (dashed: budget {beta:g})")
    axes.legend(loc="upper right", frameon=False)
    axes.set_title("Green: certified; red: tested, not certified; bars reach to the CUR\n"
                   f"Grey: search losses of all trials ({outside} beyond the frame)", loc="left", fontsize=9)  # fmt: skip


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front
