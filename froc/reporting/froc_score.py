"""The figures of the published score (FROC 2512.13337)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from froc.reporting.style import GREY, INK, MARKERS, RED, axis_limits
from froc.risk.froc_score import Scores, Weighing, against_base, softplus


def draw_score(
    figure: Any, done: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any], weighing: Weighing
) -> None:
    """Left: e_R of every configuration, grouped by method. Right: what it is made of, with lines of equal e_R."""
    import matplotlib as mpl

    done = sorted(done, key=lambda line: (line["method"], line["trial"]))
    scores = against_base([line["averages"] for line in done], weighing)
    high = float(np.quantile(scores.e_r, 0.9))
    shade = mpl.cm.ScalarMappable(mpl.colors.Normalize(min(float(scores.e_r.min()), high - 1e-9), high), "viridis_r")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    methods = list(dict.fromkeys(line["method"] for line in done))
    marks = dict(zip(methods, MARKERS * 3, strict=False))
    _score_bars(left, done, scores, shade, marks, certificate["chosen"])
    _score_plane(right, done, scores, shade, marks, certificate["chosen"], weighing)
    bar = figure.colorbar(shade, ax=right, extend="max")
    bar.set_label("$e_R$, smaller is better")
    figure.suptitle("FROC's score on search queries: a score, not a bound (nothing is certified from it)",
                    x=0.01, ha="left", fontsize=10)  # fmt: skip


def _score_bars(
    axes: Any, done: Sequence[Mapping[str, Any]], scores: Scores, shade: Any, marks: Mapping[str, str], chosen: str | None,
) -> None:  # fmt: skip
    places, start, ticks = np.arange(len(done)), 0, []
    for method, mark in marks.items():
        mine = np.array([line["method"] == method for line in done])
        axes.vlines(places[mine], 0, scores.e_r[mine], color=GREY, lw=1)
        axes.scatter(places[mine], scores.e_r[mine], c=scores.e_r[mine], cmap=shade.cmap, norm=shade.norm, marker=mark, s=26,
                     zorder=3)  # fmt: skip
        ticks.append(start + (mine.sum() - 1) / 2)
        start += mine.sum()
        axes.axvline(start - 0.5, color=GREY, lw=0.4)
    for place, line in enumerate(done):
        if line["config"] == chosen:
            axes.plot(place, scores.e_r[place], "o", ms=11, mfc="none", mec=INK, mew=1.2, zorder=4)
    axes.set_xticks(ticks, list(marks), rotation=25, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(done) - 0.5)
    axes.set_ylim(0, 1.06 * float(scores.e_r.max()))
    axes.set_ylabel("$e_R$")
    axes.set_title(f"{len(done)} configurations by method", loc="left", fontsize=9)


def _score_plane(
    axes: Any, done: Sequence[Mapping[str, Any]], scores: Scores, shade: Any, marks: Mapping[str, str], chosen: str | None,
    weighing: Weighing,
) -> None:  # fmt: skip
    base = against_base([{risk: _unchanged(means) for risk, means in done[0]["averages"].items()}], weighing)
    across, up = np.append(scores.s, base.s), np.append(scores.r, base.r)
    s, r = (np.linspace(*axis_limits(values), 160) for values in (across, up))
    plane = weighing.w_f * softplus(weighing.alpha_unlearn - s)[None, :] + weighing.w_u * softplus(r)[:, None]
    lines = axes.contour(s, r, plane, levels=7, colors=GREY, linewidths=0.6, linestyles="--")
    axes.clabel(lines, fontsize=7, fmt="%.2g", colors=GREY)
    for method, mark in marks.items():
        mine = np.array([line["method"] == method for line in done])
        axes.scatter(scores.s[mine], scores.r[mine], c=scores.e_r[mine], cmap=shade.cmap, norm=shade.norm, marker=mark, s=34,
                     edgecolors=INK, linewidths=0.4, zorder=3)  # fmt: skip
        axes.plot([], [], mark, ms=5, color=INK, ls="", label=method)
    axes.plot(base.s, base.r, "+", ms=11, mew=1.8, color=RED, zorder=4, label="base model")
    for place, line in enumerate(done):
        if line["config"] == chosen:
            axes.plot(scores.s[place], scores.r[place], "o", ms=13, mfc="none", mec=INK, mew=1.2, zorder=4)
    axes.plot([], [], "o", ms=9, mfc="none", mec=INK, mew=1.2, ls="", label="chosen")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False, fontsize=8)
    axes.set_xlabel("forgetting shift $s$ (larger: more is forgotten)")
    axes.set_ylabel("utility distortion $r$ (larger: more is spoiled)")
    axes.set_title("what it is made of; dashed: equal $e_R$", loc="left", fontsize=9)


def _unchanged(means: Mapping[str, float]) -> dict[str, float]:
    """A trial that left the base model as it was."""
    base = {name: value for name, value in means.items() if name.startswith("base_")}
    return {name.removeprefix("base_"): value for name, value in base.items()} | base
