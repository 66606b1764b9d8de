"""The figure of a chain of runs: what each removed, what is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.reporting.style import COLOURS, INK, MARKERS, STYLE

if TYPE_CHECKING:
    pass


def draw_sustainability(path: Path, record: Mapping[str, Any]) -> None:
    """Write two panels over the number of removals: how far each request can still be had, and what utility is left.

    record: sustainability.json. Lines are search losses; open diamonds are the bounds that each run certified of its model.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = record["removals"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 4.6), dpi=150)
        figure.subplots_adjust(left=0.07, right=0.985, bottom=0.24, top=0.85, wspace=0.2)
        left, right = figure.subplots(1, 2)
        _requests(left, rows)
        _kept(right, rows)
        for axes in (left, right):
            _budgets(axes, rows, ("forgetting",) if axes is left else ("utility",))
            axes.set_xticks([row["removals"] for row in rows])
            axes.set_xlim(rows[0]["removals"] - 0.25, rows[-1]["removals"] + 0.25)
            axes.set_xlabel("removals so far")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4, frameon=False, fontsize=8)
        figure.suptitle("Lines: search queries, not certified. Open diamonds: bounds that each run certified of its chosen model",
                        x=0.01, ha="left", fontsize=10)  # fmt: skip
        figure.savefig(path, metadata={"Software": None})


def _requests(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per request, a little beside the others; dotted up to its removal."""
    numbers = sorted({int(n) for row in rows for n in row["forgetting"]})
    for place, number in enumerate(numbers):
        colour, beside = COLOURS[place % len(COLOURS)], 0.07 * (place - (len(numbers) - 1) / 2)
        style = {"color": colour, "marker": MARKERS[place % len(MARKERS)], "ms": 5}
        losses = {row["removals"]: row["forgetting"][str(number)] for row in rows if str(number) in row["forgetting"]}
        done, before = ([(k + beside, value) for k, value in losses.items() if wanted(k)]
                        for wanted in (number.__le__, number.__ge__))  # fmt: skip
        axes.plot(*zip(*done, strict=True), lw=1.6, label=f"request {number}", zorder=3, **style)
        axes.plot(*zip(*before, strict=True), ls=":", lw=1, **style)
        bounds = [(row["removals"] + beside, risks[risk]["at_most"]) for row in rows
                  if (risk := risk_of(row, number)) in (risks := row["certificate"]["risks"])]  # fmt: skip
        if bounds:
            axes.plot(*zip(*bounds, strict=True), "D", ms=9, mfc="none", mec=colour, mew=1.3, ls="", zorder=4)
    axes.plot([], [], "D", ms=8, mfc="none", mec=INK, mew=1.3, ls="", label="certified: at most")
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("how far it can still be had")
    axes.set_title("forgetting, request by request (dotted: not yet removed)", loc="left", fontsize=9)


def risk_of(row: Mapping[str, Any], number: int) -> str:
    """What a run's certificate calls the risk of a request; "" where it has none yet."""
    if number >= row["removals"]:
        return "forgetting" if number == row["removals"] else ""
    return "earlier" if row["removals"] == 2 else f"earlier-{number}"


def _kept(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    points = [(row["removals"], row["utility"]) for row in rows if row["utility"] is not None]
    if points:
        axes.plot(*zip(*points, strict=True), "o-", color=INK, lw=1.6, ms=5, label="from the first base", zorder=3)
    certified = [(row["removals"], row["certificate"]["risks"].get("utility")) for row in rows]
    bounds = [(k, risk["at_most"]) for k, risk in certified if risk]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), "D", ms=9, mfc="none", mec=INK, mew=1.3, ls="",
                  label="certified: at most, from its own base", zorder=4)  # fmt: skip
    values = [value for _, value in (*points, *bounds)]
    axes.set_ylim(-0.01, max([0.2, *(1.25 * value for value in values)]))
    axes.set_ylabel("retained answers lost")
    axes.set_title("utility of the answers to questions that are kept", loc="left", fontsize=9)


def _budgets(axes: Any, rows: Sequence[Mapping[str, Any]], risks: Sequence[str]) -> None:
    """Budgets of the last run as dashed lines."""
    last = rows[-1]["certificate"]["risks"]
    every = [name for name in last if name in risks or ("forgetting" in risks and name.startswith("earlier"))]
    for alpha in dict.fromkeys(last[name]["budget"] for name in every):
        axes.axhline(alpha, color=INK, lw=1, ls="--", zorder=1)
        axes.annotate(f"budget {alpha:g}", (0.0, alpha), xycoords=("axes fraction", "data"), xytext=(3, 2),
                      textcoords="offset points", ha="left", va="bottom")  # fmt: skip
