"""Pictures as inline SVG: only aggregates, at most 200 points each, coordinates in whole tenths so that all machines draw alike.

Every picture has a title and a description, and its numbers are in a table beside it. Colours are the page's own, by
class, so that they follow light, dark and paper; shape and stroke repeat what colour says.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import chain
from typing import Any

from markupsafe import Markup, escape

from froc.audit.rendering.numbers import cut, percent

Both = tuple[Decimal, Decimal]
"""Utility and forgetting, or a distance and a bound."""
TENTH = Decimal("0.1")
STEPS = tuple(map(Decimal, ("0.01", "0.02", "0.05", "0.1", "0.2", "0.25", "0.5")))
GRID = 10
"""Cells along each side of the risk landscape: 100 in total."""
BARS = 150
"""Largest number of bars in a timeline, apart from one more per row."""
LANES = 150
"""Largest number of its rows."""


def tenth(value: Decimal) -> str:
    """A coordinate as text."""
    return str(value.quantize(TENTH, ROUND_FLOOR))


def top(values: Iterable[Decimal], room: str = "1.15") -> Decimal:
    """The end of an axis from 0 that holds all values, in whole hundredths."""
    return min(Decimal(1), (max(values) * Decimal(room)).quantize(Decimal("0.01"), ROUND_CEILING))


def ticks(end: Decimal, most: int = 6) -> list[Decimal]:
    """Round numbers from 0 to the end of an axis."""
    step = next((s for s in STEPS if end / s <= most), STEPS[-1])
    return [step * i for i in range(int(end / step) + 1)]


@dataclass(frozen=True)
class Axis:
    """An axis of a picture. start, end: its coordinates; most: the value at its end."""

    start: int
    end: int
    most: Decimal

    def place(self, value: Decimal) -> Decimal:
        """The coordinate of a value; values beyond the end are at the end."""
        return self.start + min(value, self.most) / self.most * (self.end - self.start)

    def at(self, value: Decimal) -> str:
        """The coordinate as text."""
        return tenth(self.place(value))


def svg(width: int, height: int, title: str, text: str, *parts: str, kind: str = "plot") -> Markup:
    """A picture with title and description."""
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(kind, width, height, title, title, text, Markup("".join(parts)))


def _label(x: str, y: str | int, text: str, anchor: str = "middle", kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def scale(most: Decimal) -> Markup:
    """The axis above the bars of page 1; its numbers are in the columns beside them."""
    axis = Axis(14, 246, most)
    marks = [f'<path class="grid" d="M{axis.at(t)} 15v5"/>' for t in ticks(most, 5)]
    words = [_label(axis.at(t), 11, percent(str(t))) for t in ticks(most, 5)]
    return Markup('<svg class="bar" viewBox="0 0 260 20" aria-hidden="true">{}</svg>').format(
        Markup("".join([*marks, *words]))
    )


def bar(name: str, mean: Decimal, bound: Decimal, budget: Decimal, most: Decimal, within: bool) -> Markup:
    """One risk: a dot at the measured mean, a line to a diamond at the bound, a dashed line at the budget."""
    axis, kind = Axis(14, 246, most), "ok" if within else "not"
    width = tenth(axis.place(budget) - axis.start)
    beyond = '<path class="line not" d="M250 6l5 6-5 6"/>' if bound > most else ""
    return svg(
        260, 24, f"{name}: measured, bound and budget",
        "Dot: measured mean. Diamond: upper bound. Dashed line: budget. The numbers stand in the same row.",
        *(f'<path class="grid" d="M{axis.at(t)} 0v24"/>' for t in ticks(most, 5)),
        f'<rect class="zone" x="14" y="4" width="{width}" height="16"/><path class="budget" d="M{axis.at(budget)} 0v24"/>',
        f'<path class="line {kind}" d="M{axis.at(mean)} 12H{axis.at(bound)}"/>',
        f'<circle class="dot {kind}" cx="{axis.at(mean)}" cy="12" r="4.2"/>',
        f'<path class="gem {kind}" transform="translate({axis.at(bound)} 12)" d="M0-5.600L5.600 0 0 5.600-5.600 0z"/>',
        beyond, kind="bar",
    )  # fmt: skip


def _frame(x: Axis, y: Axis, across: str, along: str) -> list[str]:
    """Grid, ticks and labels of two axes."""
    lines = [f'<path class="grid" d="M{x.at(t)} {y.end}V{y.start}"/>' for t in ticks(x.most)]
    lines += [f'<path class="grid" d="M{x.start} {y.at(t)}H{x.end}"/>' for t in ticks(y.most)]
    lines += [_label(x.at(t), y.start + 17, percent(str(t))) for t in ticks(x.most)]
    lines += [_label(str(x.start - 8), tenth(y.place(t) + 4), percent(str(t)), "end") for t in ticks(y.most)]
    middle = (y.start + y.end) // 2
    lines.append(_label(str((x.start + x.end) // 2), y.start + 36, across, kind="axis"))
    return [
        *lines,
        f'<text class="axis" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(along)}</text>',
    ]


def _budgets(x: Axis, y: Axis, budget: Mapping[str, Decimal]) -> list[str]:
    """The region where both budgets are kept."""
    right, high = x.at(budget["utility"]), y.at(budget["forgetting"])
    width, height = tenth(x.place(budget["utility"]) - x.start), tenth(y.start - y.place(budget["forgetting"]))
    return [
        f'<rect class="zone" x="{x.start}" y="{high}" width="{width}" height="{height}"/>',
        f'<path class="budget" d="M{x.start} {high}H{right}V{y.start}"/>',
    ]


def cells(points: Sequence[Both], ends: Both) -> dict[tuple[int, int], int]:
    """(utility, forgetting) cell -> how many configurations fall in it. ends: of the two axes."""
    counts: Counter[tuple[int, int]] = Counter()
    for u, f in points:
        counts[min(GRID - 1, int(u / ends[0] * GRID)), min(GRID - 1, int(f / ends[1] * GRID))] += 1
    return dict(sorted(counts.items()))


def landscape(counts: Mapping[tuple[int, int], int], ends: Both, budget: Mapping[str, Decimal]) -> Markup:
    """All measured configurations by their search losses; a square's area grows with the number in its cell."""
    x, y = Axis(58, 478, ends[0]), Axis(300, 14, ends[1])
    wide, high, most = Decimal(420) / GRID, Decimal(286) / GRID, max(counts.values())
    squares = []
    for (i, j), number in counts.items():
        # the area grows with the count
        side = (Decimal(5) + 19 * (Decimal(number) / most).sqrt()).quantize(TENTH)
        left, upper = 58 + wide * i + (wide - side) / 2, 300 - high * (j + 1) + (high - side) / 2
        squares.append(
            f'<rect class="cell" x="{tenth(left)}" y="{tenth(upper)}" width="{tenth(side)}" height="{tenth(side)}"/>'
        )
    return svg(
        500, 344, "Risk landscape of all measured configurations",
        "Utility loss across, forgetting loss upwards, on search queries. Larger squares: more configurations. Shaded: within both budgets.",
        *_frame(x, y, "utility: search loss", "forgetting: search loss"), *_budgets(x, y, budget), *squares,
    )  # fmt: skip


def front(line: Sequence[Both], tested: Sequence[Mapping[str, Any]], budget: Mapping[str, Decimal]) -> Markup:
    """Search losses that no other configuration beats in both, and the tested candidates with their bounds."""
    ends = [Decimal(row["cur"][risk]["simultaneous"]) for row in tested for risk in budget]
    most = top([*ends, *budget.values()])
    x, y = Axis(58, 478, most), Axis(300, 14, most)
    inside = [point for point in line if max(point) <= most]
    steps = "".join(f"{'M' if i == 0 else 'L'}{x.at(u)} {y.at(f)}" for i, (u, f) in enumerate(inside))
    marks = [f'<path class="front" d="{steps}"/>'] if len(inside) > 1 else []
    for row in tested:
        u, f = (Decimal(row["empirical"][risk]) for risk in ("utility", "forgetting"))
        bu, bf = (Decimal(row["cur"][risk]["simultaneous"]) for risk in ("utility", "forgetting"))
        kind = "ok" if row["certified"] else "not"
        marks.append(f'<path class="reach {kind}" d="M{x.at(u)} {y.at(f)}L{x.at(bu)} {y.at(bf)}"/>')
        place = f"{x.at(u)} {y.at(f)}"
        shape = "M0-5a5 5 0 1 0 .1 0z" if row["certified"] else "M-4-4h8v8h-8z"
        marks.append(
            f'<path class="{"dot" if row["certified"] else "box"} {kind}" transform="translate({place})" d="{shape}"/>'
        )
        if row.get("reported"):
            marks.append(f'<circle class="ring" cx="{x.at(u)}" cy="{y.at(f)}" r="9"/>')
    return svg(
        500, 344, "Pareto front and tested configurations",
        "Utility across, forgetting upwards. Line: the best of the search losses. Dots: certified; squares: not; each with a line to "
        "its bounds. Ring: reported. Shaded: within both budgets.",
        *_frame(x, y, "utility: risk", "forgetting: risk"), *_budgets(x, y, budget), *marks,
    )  # fmt: skip


def shift(name: str, curve: Sequence[Both], budget: Decimal, radius: Decimal | None) -> Markup:
    """The bound as a function of the Hellinger distance; a dot where it meets the budget."""
    x, y = Axis(48, 228, curve[-1][0]), Axis(128, 12, top([budget * 2, curve[0][1]]))
    inside = [point for point in curve if point[1] <= y.most]
    line = "".join(f"{'M' if i == 0 else 'L'}{x.at(rho)} {y.at(bound)}" for i, (rho, bound) in enumerate(inside))
    far = ticks(x.most, 4)
    return svg(
        240, 164, f"{name}: bound under shift",
        "Hellinger distance across, bound upwards. Dashed line: budget. Dot: the robust radius.",
        *(f'<path class="grid" d="M48 {y.at(t)}H228"/>' for t in ticks(y.most, 4)),
        *(_label("42", tenth(y.place(t) + 4), percent(str(t)), "end") for t in ticks(y.most, 4)),
        *(_label(x.at(t), 145, f"{t.normalize():f}") for t in far),
        _label("138", 161, cut(name, 32), kind="axis"),
        f'<path class="budget" d="M48 {y.at(budget)}H228"/>',
        f'<path class="front" d="{line}"/>',
        "" if radius is None else f'<circle class="dot ok" cx="{x.at(radius)}" cy="{y.at(budget)}" r="4"/>',
        kind="small",
    )  # fmt: skip


def classes(name: str, spans: Sequence[tuple[int, int, int]]) -> Markup:
    """Losses of one risk as bars: (first thousandth, last, queries) each."""
    x, most = Axis(6, 254, Decimal(1)), max(number for _, _, number in spans)
    bars = []
    for low, high, number in spans:
        # a class of a single value is widened to be visible
        left, right = x.place(Decimal(low) / 1000), max(x.place(Decimal(high) / 1000), x.place(Decimal(low) / 1000) + 3)
        tall = (Decimal(34) * number / most).quantize(TENTH, ROUND_CEILING)
        bars.append(
            f'<rect class="cell" x="{tenth(left)}" y="{tenth(36 - tall)}" width="{tenth(right - left)}" height="{tenth(tall)}"/>'
        )
    return svg(
        262, 50, f"{name}: distribution of losses", "Loss from 0 to 1 across; height: number of queries. The numbers stand beside it.",
        *bars, '<path class="base" d="M6 36H257"/>', _label("6", 48, "0", "start"), _label("257", 48, "1", "end"), kind="bar",
    )  # fmt: skip


@dataclass(frozen=True)
class Span:
    """One trial, or several consecutive ones drawn as one: start and end in seconds, and status."""

    start: int
    end: int
    kind: str


WORST = ("complete", "pruned", "interrupted", "failed")
"""Statuses in increasing priority: a bar for several trials has the last of these that occurs."""


def lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans in rows without overlap; each goes to the first row that is free, and spans are merged until there are few.

    Beyond `LANES` rows, several share one, whose spans may overlap.
    """
    rows: list[list[Span]] = []
    busy, free = list[tuple[int, int]](), list[int]()
    for span in sorted(spans, key=lambda ordered: (ordered.start, ordered.end)):
        while busy and busy[0][0] <= span.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        row = heapq.heappop(free) if free else len(rows)
        if row == len(rows):
            rows.append([])
        rows[row].append(span)
        heapq.heappush(busy, (span.end, row))
    per, share = -(-len(spans) // BARS), -(-len(rows) // LANES)
    if share > 1:
        rows = [sorted(chain(*rows[i : i + share]), key=lambda s: (s.start, s.end)) for i in range(0, len(rows), share)]
    return [[_joined(row[i : i + per]) for i in range(0, len(row), per)] for row in rows]


def _joined(spans: Sequence[Span]) -> Span:
    """One bar for several trials, from the first one's start to the last one's end."""
    return Span(spans[0].start, max(span.end for span in spans), max((span.kind for span in spans), key=WORST.index))


def timeline(rows: Sequence[Sequence[Span]]) -> Markup:
    """When trials ran, with a row per simultaneous trial."""
    end = max([1, *(span.end for row in rows for span in row)])
    pitch = 16 if len(rows) <= 16 else 6
    x, low = Axis(8, 632, Decimal(end)), 8 + pitch * len(rows)
    step = next((s for s in (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400) if end / s <= 8), -(-end // 8))
    marks = [f'<path class="grid" d="M{x.at(Decimal(t))} 4V{low}"/>' for t in range(0, end + 1, step)]
    marks += [_label(x.at(Decimal(t)), low + 16, _time(t)) for t in range(0, end + 1, step)]
    for i, row in enumerate(rows):
        for span in row:
            left = x.place(Decimal(span.start))
            width = max(Decimal(3), x.place(Decimal(span.end)) - left - 1)
            marks.append(
                f'<rect class="span {span.kind}" x="{tenth(left)}" y="{8 + pitch * i}" width="{tenth(width)}" height="{pitch - 3}"/>'
            )
    return svg(
        640, low + 22, "Timeline of trials",
        "Time since the first trial across; a row for each trial that ran at the same time. Filled: complete; light: stopped early; "
        "dashed outline: interrupted; thick outline: failed.",
        *marks, kind="wide",
    )  # fmt: skip


def _time(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
