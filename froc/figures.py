"""Pictures of a run: the risk landscape, the Pareto front with budgets and CURs, and FROC's score of all trials.

Torch-free; matplotlib is imported when a picture is drawn. Shapes and labels carry the meaning beside the colours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from froc.published import Scores, Weighing, against_base, softplus

GREEN, RED, GREY, INK = "#1b7f4d", "#c2452d", "#9aa3ab", "#20262c"
MARKS = "osD^vP*Xh<>p"


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
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}):
        for name, size, paint in (("landscape", (9.0, 4.6), _landscape), ("pareto", (7.4, 5.6), _pareto)):
            figure = Figure(figsize=size, dpi=150, layout="constrained")
            paint(figure, done, certificate)
            path = folder / f"{name}.png"
            figure.savefig(path, metadata={"Software": None})
            written.append(path)
        if scored:
            written.append(folder / "froc_score.png")
            figure = Figure(figsize=(10.6, 4.8), dpi=150, layout="constrained")
            _score(figure, scored, certificate, Weighing(**(weighing or {})))
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
            said = f"chosen: {one['config']} ({one['method']})" if one["method"] else f"chosen: {one['config']}"
            axes.plot([], [], "o", ms=9, mfc="none", mec=GREEN, mew=1.5, ls="", label=said)
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


def _score(figure: Any, done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any], weighing: Weighing) -> None:
    """Left: e_R of every configuration, grouped by method. Right: what it is made of, with lines of equal e_R."""
    import matplotlib as mpl

    done = sorted(done, key=lambda line: (line["method"], line["trial"]))
    found = against_base([line["averages"] for line in done], weighing)
    high = float(np.quantile(found.e_r, 0.9))
    shade = mpl.cm.ScalarMappable(mpl.colors.Normalize(min(float(found.e_r.min()), high - 1e-9), high), "viridis_r")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    methods = list(dict.fromkeys(line["method"] for line in done))
    marks = dict(zip(methods, MARKS * 3, strict=False))
    _score_bars(left, done, found, shade, marks, certificate["chosen"])
    _score_plane(right, done, found, shade, marks, certificate["chosen"], weighing)
    bar = figure.colorbar(shade, ax=right, extend="max")
    bar.set_label("$e_R$, smaller is better")
    figure.suptitle("FROC's score on search queries: a score, not a bound (nothing is certified from it)",
                    x=0.01, ha="left", fontsize=10)  # fmt: skip


def _score_bars(
    axes: Any, done: Sequence[Mapping[str, Any]], found: Scores, shade: Any, marks: Mapping[str, str], chosen: str | None,
) -> None:  # fmt: skip
    places, start, ticks = np.arange(len(done)), 0, []
    for method, mark in marks.items():
        mine = np.array([line["method"] == method for line in done])
        axes.vlines(places[mine], 0, found.e_r[mine], color=GREY, lw=1)
        axes.scatter(places[mine], found.e_r[mine], c=found.e_r[mine], cmap=shade.cmap, norm=shade.norm, marker=mark, s=26,
                     zorder=3)  # fmt: skip
        ticks.append(start + (mine.sum() - 1) / 2)
        start += mine.sum()
        axes.axvline(start - 0.5, color=GREY, lw=0.4)
    for place, line in enumerate(done):
        if line["config"] == chosen:
            axes.plot(place, found.e_r[place], "o", ms=11, mfc="none", mec=INK, mew=1.2, zorder=4)
    axes.set_xticks(ticks, list(marks), rotation=25, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(done) - 0.5)
    axes.set_ylim(0, 1.06 * float(found.e_r.max()))
    axes.set_ylabel("$e_R$")
    axes.set_title(f"{len(done)} configurations by method", loc="left", fontsize=9)


def _score_plane(
    axes: Any, done: Sequence[Mapping[str, Any]], found: Scores, shade: Any, marks: Mapping[str, str], chosen: str | None,
    weighing: Weighing,
) -> None:  # fmt: skip
    base = against_base([{risk: _unchanged(means) for risk, means in done[0]["averages"].items()}], weighing)
    across, up = np.append(found.s, base.s), np.append(found.r, base.r)
    s, r = (np.linspace(*_room(some), 160) for some in (across, up))
    plane = weighing.w_f * softplus(weighing.alpha_unlearn - s)[None, :] + weighing.w_u * softplus(r)[:, None]
    lines = axes.contour(s, r, plane, levels=7, colors=GREY, linewidths=0.6, linestyles="--")
    axes.clabel(lines, fontsize=7, fmt="%.2g", colors=GREY)
    for method, mark in marks.items():
        mine = np.array([line["method"] == method for line in done])
        axes.scatter(found.s[mine], found.r[mine], c=found.e_r[mine], cmap=shade.cmap, norm=shade.norm, marker=mark, s=34,
                     edgecolors=INK, linewidths=0.4, zorder=3)  # fmt: skip
        axes.plot([], [], mark, ms=5, color=INK, ls="", label=method)
    axes.plot(base.s, base.r, "+", ms=11, mew=1.8, color=RED, zorder=4, label="base model")
    for place, line in enumerate(done):
        if line["config"] == chosen:
            axes.plot(found.s[place], found.r[place], "o", ms=13, mfc="none", mec=INK, mew=1.2, zorder=4)
    axes.plot([], [], "o", ms=9, mfc="none", mec=INK, mew=1.2, ls="", label="chosen")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False, fontsize=8)
    axes.set_xlabel("forgetting shift $s$ (larger: more is forgotten)")
    axes.set_ylabel("utility distortion $r$ (larger: more is spoiled)")
    axes.set_title("what it is made of; dashed: equal $e_R$", loc="left", fontsize=9)


def _unchanged(means: Mapping[str, float]) -> dict[str, float]:
    """A trial that left the base model as it was."""
    base = {name: value for name, value in means.items() if name.startswith("base_")}
    return {name.removeprefix("base_"): value for name, value in base.items()} | base


def _room(some: Any) -> tuple[float, float]:
    low, high = float(some.min()), float(some.max())
    edge = 0.08 * max(high - low, 0.5)
    return low - edge, high + edge


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front
