"""The pictures of a page hold the numbers beside them: coordinates are read back, and compared with values worked out by hand."""

from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from froc.audit.rendering import figures, summary
from froc.audit.rendering.figures import Axis, Span
from tests.audit import hard

D = Decimal


def drawn(picture: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(picture))


def of(picture: Markup, kind: str) -> list[dict[str, str]]:
    """Attributes of the shapes of a class, in the order in which they are drawn."""
    return [dict(shape.attrib) for shape in drawn(picture) if shape.get("class") == kind]


def places(picture: Markup, kind: str, *names: str) -> list[tuple[str, ...]]:
    return [tuple(shape[name] for name in names) for shape in of(picture, kind)]


def paths(picture: Markup, kind: str) -> list[str]:
    return [d for (d,) in places(picture, kind, "d")]


def labels(picture: Markup) -> list[tuple[str | None, str | None, str | None]]:
    """(x, y, text) of every tick's label."""
    return [
        (text.get("x"), text.get("y"), text.text) for text in drawn(picture).iter("text") if text.get("class") == "tick"
    ]


def words(picture: Markup) -> tuple[str | None, str | None, str | None, str | None]:
    """Class, size and title of a picture, and what is read aloud in its place."""
    root = drawn(picture)
    assert root.find("desc") is not None
    return root.get("class"), root.get("viewBox"), root.findtext("title"), root.get("aria-label")


@pytest.mark.parametrize(
    ("values", "end"),
    [(["0.05", "0.2", "0.1"], "0.23"), (["0.101"], "0.12"), (["0.1", "0.9"], "1"), (["1"], "1"), (["0.001"], "0.01")],
)
def test_an_axis_ends_beyond_its_largest_value_and_at_most_at_1(values: list[str], end: str) -> None:
    assert figures.top(map(D, values)) == D(end)


def test_an_axis_without_room_ends_at_its_largest_value() -> None:
    assert figures.top([D("0.05"), D("0.2")], "1") == D("0.2")


@pytest.mark.parametrize(
    ("end", "most", "marks"),
    [
        ("0.23", 6, ["0", "0.05", "0.1", "0.15", "0.2"]),
        ("0.06", 6, ["0", "0.01", "0.02", "0.03", "0.04", "0.05", "0.06"]),
        ("0.07", 6, ["0", "0.02", "0.04", "0.06"]),
        ("1", 6, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ("1", 4, ["0", "0.25", "0.5", "0.75", "1"]),
        ("1", 1, ["0", "0.5", "1"]),
    ],
)
def test_ticks_are_round_numbers_from_0_to_the_end(end: str, most: int, marks: list[str]) -> None:
    assert figures.ticks(D(end), most) == [D(mark) for mark in marks]
    if most == 6:
        assert figures.ticks(D(end)) == [D(mark) for mark in marks]


@pytest.mark.parametrize(("value", "place"), [("0", 14), ("0.1", 130), ("0.15", 188), ("0.2", 246), ("0.7", 246)])
def test_a_value_has_its_share_of_the_axis_and_beyond_the_end_is_at_the_end(value: str, place: int) -> None:
    axis = Axis(14, 246, D("0.2"))
    assert axis.place(D(value)) == place
    assert axis.at(D(value)) == f"{place}.0"
    # upwards, where the coordinates fall
    assert Axis(246, 14, D("0.2")).place(D(value)) == 260 - place


@pytest.mark.parametrize(("value", "text"), [("0.12", "12.0"), ("0.1239", "12.3"), ("0.123", "12.3")])
def test_coordinates_are_whole_tenths_rounded_down(value: str, text: str) -> None:
    assert Axis(0, 100, D(1)).at(D(value)) == text


def test_the_axis_above_the_bars_names_its_ticks_where_they_are() -> None:
    picture = figures.scale(D("0.4"))
    ticks = [("14.0", "0%"), ("72.0", "10%"), ("130.0", "20%"), ("188.0", "30%"), ("246.0", "40%")]
    assert labels(picture) == [(x, "11", text) for x, text in ticks]
    assert paths(picture, "grid") == [f"M{x} 15v5" for x, _ in ticks]


@pytest.mark.parametrize(
    ("end", "marks"), [("0.5", ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]), ("0.6", ["0", "0.2", "0.4", "0.6"])]
)
def test_a_bar_has_the_ticks_of_the_axis_above_it_at_most_six(end: str, marks: list[str]) -> None:
    above, axis = figures.scale(D(end)), Axis(14, 246, D(end))
    picture = figures.bar("r", D("0.1"), D("0.2"), D("0.3"), D(end), True)
    assert [text for _, _, text in labels(above)] == [f"{D(mark) * 100:.0f}%" for mark in marks]
    assert paths(above, "grid") == [f"M{axis.at(D(mark))} 15v5" for mark in marks]
    assert paths(picture, "grid") == [f"M{axis.at(D(mark))} 0v24" for mark in marks]


@pytest.mark.parametrize(("within", "kind"), [(True, "ok"), (False, "not")])
def test_a_bar_has_mean_bound_and_budget_in_their_places(within: bool, kind: str) -> None:
    picture = figures.bar("<a> & b", D("0.1"), D("0.2"), D("0.3"), D("0.4"), within)
    title = "<a> & b: measured, bound and budget"
    assert words(picture) == ("bar", "0 0 260 24", title, title)
    assert places(picture, f"dot {kind}", "cx", "cy") == [("72.0", "12")]
    assert places(picture, f"gem {kind}", "transform") == [("translate(130.0 12)",)]
    assert paths(picture, f"line {kind}") == ["M72.0 12H130.0"]
    assert paths(picture, "budget") == ["M188.0 0v24"]
    assert places(picture, "zone", "x", "y", "width", "height") == [("14", "4", "174.0", "16")]
    assert paths(picture, "grid") == [f"M{x}.0 0v24" for x in (14, 72, 130, 188, 246)]


@pytest.mark.parametrize(("bound", "arrows"), [("0.39", 0), ("0.4", 0), ("0.41", 1)])
def test_only_a_bound_beyond_the_end_of_the_axis_has_an_arrow(bound: str, arrows: int) -> None:
    picture = figures.bar("r", D("0.1"), D(bound), D("0.3"), D("0.4"), True)
    assert len(of(picture, "line not")) == arrows
    (gem,) = places(picture, "gem ok", "transform")
    assert (gem == ("translate(246.0 12)",)) == (bound != "0.39")


def test_the_bars_of_a_page_have_the_signed_numbers_on_one_axis() -> None:
    report, _ = hard.made()
    shown = summary.view(report)["shown"]
    assert len(shown) > 1
    most = min(D(1), max(D(k[name]) for k in shown for name in ("bound", "budget", "measured")) * D("1.15"))

    def value(place: str) -> float:
        return float((D(place) - 14) / 232 * most)

    for k in shown:
        kind = "ok" if k["within"] else "not"
        ((dot,),) = places(k["bar"], f"dot {kind}", "cx")
        (line,) = paths(k["bar"], f"line {kind}")
        (budget,) = paths(k["bar"], "budget")
        # a tenth of a unit, and a hundredth by which the axis may be longer
        assert value(dot) == pytest.approx(float(k["measured"]), abs=0.01)
        assert value(line.partition("H")[2]) == pytest.approx(float(k["bound"]), abs=0.01)
        assert value(budget[1:].split()[0]) == pytest.approx(float(k["budget"]), abs=0.01)


def test_a_point_falls_in_one_of_a_hundred_cells() -> None:
    points = [("0.0499", "0"), ("0.05", "0.72"), ("0.0501", "0.79"), ("0.5", "0.8"), ("0.499", "0.4")]
    counts = figures.cells([(D(u), D(f)) for u, f in points], (D("0.5"), D("0.8")))
    assert list(counts.items()) == [((0, 0), 1), ((1, 9), 2), ((9, 5), 1), ((9, 9), 1)]


PAIR = {"utility": D("0.1"), "forgetting": D("0.25")}


def test_a_square_of_the_landscape_is_in_the_middle_of_its_cell_and_as_large_as_its_count() -> None:
    """Cells are 42 by 28.6; half of 19 is added to 5 where a cell has a quarter of the most."""
    picture = figures.landscape({(0, 0): 4, (2, 5): 1, (9, 9): 1}, (D("0.5"), D(1)), PAIR)
    assert places(picture, "cell", "x", "y", "width", "height") == [
        ("67.0", "273.7", "24.0", "24.0"),
        ("155.7", "135.4", "14.5", "14.5"),
        ("449.7", "21.0", "14.5", "14.5"),
    ]
    title = "Risk landscape of all measured configurations"
    assert words(picture) == ("plot", "0 0 500 344", title, title)


def test_a_landscape_has_axes_with_their_own_ends_and_the_region_of_both_budgets() -> None:
    picture = figures.landscape({(0, 0): 1}, (D("0.5"), D(1)), PAIR)
    across = [("58.0", "0%"), ("142.0", "10%"), ("226.0", "20%"), ("310.0", "30%"), ("394.0", "40%"), ("478.0", "50%")]
    along = [("300.0", "0%"), ("242.8", "20%"), ("185.6", "40%"), ("128.4", "60%"), ("71.2", "80%"), ("14.0", "100%")]
    assert labels(picture) == [(x, "317", text) for x, text in across] + [
        ("50", str(D(y) + 4), text) for y, text in along
    ]
    assert paths(picture, "grid") == [f"M{x} 14V300" for x, _ in across] + [f"M58 {y}H478" for y, _ in along]
    assert places(picture, "zone", "x", "y", "width", "height") == [("58", "228.5", "84.0", "71.5")]
    assert paths(picture, "budget") == ["M58 228.5H142.0V300"]
    utility, forgetting = (text for text in drawn(picture).iter("text") if text.get("class") == "axis")
    assert (utility.text, utility.get("x"), utility.get("y")) == ("utility: search loss", "268", "336")
    assert (forgetting.text, forgetting.get("transform")) == (
        "forgetting: search loss",
        "translate(14 157) rotate(-90)",
    )


def candidate(utility: tuple[str, str], forgetting: tuple[str, str], **more: bool) -> dict[str, Any]:
    """A candidate with (mean, bound) of each risk."""
    return {
        "empirical": {"utility": utility[0], "forgetting": forgetting[0]},
        "cur": {"utility": {"simultaneous": utility[1]}, "forgetting": {"simultaneous": forgetting[1]}},
        **more,
    }


def test_the_front_has_each_candidate_with_a_line_to_its_bounds() -> None:
    """The axes end at 1.15 times the largest bound, 0.8: a quarter of them is 0.23."""
    rows = [
        candidate(("0.23", "0.46"), ("0.46", "0.69"), certified=True, reported=True),
        candidate(("0.69", "0.8"), ("0.23", "0.46"), certified=False, reported=False),
    ]
    line = [(D("0.23"), D("0.69")), (D("0.46"), D("0.23")), (D("0.92"), D("0.1")), (D("0.93"), D("0.05"))]
    picture = figures.front(line, rows, PAIR)
    assert paths(picture, "front") == ["M163.0 85.5L268.0 228.5L478.0 268.9"]
    assert paths(picture, "reach ok") == ["M163.0 157.0L268.0 85.5"]
    assert paths(picture, "reach not") == ["M373.0 228.5L423.2 157.0"]
    assert places(picture, "dot ok", "transform") == [("translate(163.0 157.0)",)]
    assert places(picture, "box not", "transform") == [("translate(373.0 228.5)",)]
    assert places(picture, "ring", "cx", "cy") == [("163.0", "157.0")]
    title = "Pareto front and tested configurations"
    assert words(picture) == ("plot", "0 0 500 344", title, title)
    # a line takes two points
    assert paths(figures.front(line[:1], rows, PAIR), "front") == []
    assert paths(figures.front(line[:2], rows, PAIR), "front") == ["M163.0 85.5L268.0 228.5"]


def test_the_front_holds_budgets_above_all_bounds() -> None:
    budget = {"utility": D("0.8"), "forgetting": D("0.46")}
    picture = figures.front([], [candidate(("0.1", "0.2"), ("0.1", "0.2"), certified=True)], budget)
    assert paths(picture, "budget") == ["M58 157.0H423.2V300"]
    assert of(picture, "ring") == []


SHIFTED = [(D(rho), D(bound)) for rho, bound in (("0", "0.115"), ("0.1", "0.2"), ("0.15", "0.23"), ("0.2", "0.24"))]


def test_the_bound_under_shift_meets_the_budget_at_the_radius() -> None:
    """Across to a distance of 0.2, upwards to 1.15 times twice the budget."""
    picture = figures.shift("<r> & s", SHIFTED, D("0.1"), D("0.05"))
    assert paths(picture, "front") == ["M48.0 70.0L138.0 27.1L183.0 12.0"]
    assert paths(picture, "budget") == ["M48 77.5H228"]
    assert places(picture, "dot ok", "cx", "cy") == [("93.0", "77.5")]
    assert paths(picture, "grid") == [f"M48 {y}H228" for y in ("128.0", "77.5", "27.1")]
    assert labels(picture) == [
        ("42", "132.0", "0%"),
        ("42", "81.5", "10%"),
        ("42", "31.1", "20%"),
        *[(x, "145", rho) for x, rho in zip(("48.0", "93.0", "138.0", "183.0", "228.0"), ("0", "0.05", "0.1", "0.15", "0.2"), strict=True)],
    ]  # fmt: skip
    assert words(picture) == ("small", "0 0 240 164", "<r> & s: bound under shift", "<r> & s: bound under shift")
    below = list(drawn(picture).iter("text"))[-1]
    assert (below.text, below.get("x"), below.get("y")) == ("<r> & s", "138", "161")


@pytest.mark.parametrize(("name", "shown"), [("n" * 32, "n" * 32), ("n" * 33, "n" * 31 + "…")])
def test_a_name_below_a_picture_is_cut_and_its_title_is_not(name: str, shown: str) -> None:
    picture = figures.shift(name, SHIFTED, D("0.1"), None)
    assert list(drawn(picture).iter("text"))[-1].text == shown
    assert words(picture)[2] == f"{name}: bound under shift"


@pytest.mark.parametrize(
    ("far", "across", "upwards"),
    [
        ("0.8", ["0", "0.2", "0.4", "0.6", "0.8"], ["0%", "25%", "50%", "75%"]),
        ("1", ["0", "0.25", "0.5", "0.75", "1"], ["0%", "25%", "50%", "75%", "100%"]),
    ],
)
def test_a_shift_has_at_most_five_ticks_on_each_axis(far: str, across: list[str], upwards: list[str]) -> None:
    """Upwards to 0.92, 1.15 times the first bound, and to 1."""
    picture = figures.shift("r", [(D(0), D(far)), (D(far), D(far))], D("0.1"), None)
    assert [text for _, y, text in labels(picture) if y == "145"] == across
    assert [text for x, _, text in labels(picture) if x == "42"] == upwards
    assert len(paths(picture, "grid")) == len(upwards)


def test_no_radius_has_no_dot_and_a_bound_far_above_the_budget_has_room() -> None:
    picture = figures.shift("r", [(D(0), D("0.4")), (D("0.1"), D("0.46"))], D("0.115"), None)
    assert of(picture, "dot ok") == []
    assert paths(picture, "front") == ["M48.0 27.1L228.0 12.0"]
    assert paths(picture, "budget") == ["M48 99.0H228"]


def test_classes_of_losses_are_as_wide_as_their_range_and_as_high_as_their_number() -> None:
    picture = figures.classes("r", [(0, 0, 5), (100, 900, 20), (500, 501, 10), (1000, 1000, 1)])
    assert places(picture, "cell", "x", "y", "width", "height") == [
        ("6.0", "27.5", "3.0", "8.5"),
        ("30.8", "2.0", "198.4", "34.0"),
        ("130.0", "19.0", "3.0", "17.0"),
        ("254.0", "34.3", "3.0", "1.7"),
    ]
    assert labels(picture) == [("6", "48", "0"), ("257", "48", "1")]
    assert words(picture) == ("bar", "0 0 262 50", "r: distribution of losses", "r: distribution of losses")


def spans(*times: tuple[int, int], kind: str = "complete") -> list[Span]:
    return [Span(start, end, kind) for start, end in times]


def test_spans_that_touch_share_a_row_and_others_do_not() -> None:
    assert figures.lanes(spans((5, 9), (0, 5))) == [spans((0, 5), (5, 9))]
    assert figures.lanes(spans((0, 5), (4, 9))) == [spans((0, 5)), spans((4, 9))]
    # both rows are free at 8: the first is taken
    assert figures.lanes(spans((0, 5), (3, 8), (5, 6), (8, 9))) == [spans((0, 5), (5, 6), (8, 9)), spans((3, 8))]
    assert figures.lanes([]) == []


def test_only_more_spans_than_bars_are_merged_and_the_worst_status_is_kept() -> None:
    many = spans(*((i, i + 1) for i in range(150)))
    assert figures.lanes(many) == [many]
    many = [Span(0, 1, "interrupted"), Span(1, 2, "pruned"), Span(2, 3, "pruned"), Span(3, 4, "complete"), Span(4, 5, "complete"),
            Span(5, 6, "failed"), Span(6, 7, "failed"), Span(7, 8, "interrupted"), *spans(*((i, i + 1) for i in range(8, 151)))]  # fmt: skip
    (row,) = figures.lanes(many)
    assert row[:5] == [
        Span(0, 2, "interrupted"),
        Span(2, 4, "pruned"),
        Span(4, 6, "failed"),
        Span(6, 8, "failed"),
        Span(8, 10, "complete"),
    ]
    assert row[-1] == Span(150, 151, "complete")
    assert len(row) == 76


def test_only_more_rows_than_lanes_are_shared() -> None:
    assert len(figures.lanes(spans(*[(0, 5)] * 150))) == 150
    shared = figures.lanes(spans(*((0, 200 - i) for i in range(151))))
    assert len(shared) == 76
    # the one that starts first may end last
    assert shared[-1] == spans((0, 200))
    assert shared[0] == spans((0, 51))


def test_a_timeline_has_each_span_in_its_row_from_start_to_end() -> None:
    """624 units for 40 seconds; each bar ends one unit early, so that the next stands apart."""
    rows = [[Span(0, 10, "complete"), Span(20, 40, "pruned")], [Span(5, 15, "failed"), Span(16, 16, "interrupted")]]
    picture = figures.timeline(rows)
    boxes = {
        kind: places(picture, f"span {kind}", "x", "y", "width", "height")
        for kind in ("complete", "pruned", "failed", "interrupted")
    }
    assert boxes == {
        "complete": [("8.0", "8", "155.0", "13")],
        "pruned": [("320.0", "8", "311.0", "13")],
        "failed": [("86.0", "24", "155.0", "13")],
        "interrupted": [("257.6", "24", "3.0", "13")],
    }
    ticks = [(f"{8 + 78 * i}.0", f"{5 * i} s") for i in range(9)]
    assert labels(picture) == [(x, "56", text) for x, text in ticks]
    assert paths(picture, "grid") == [f"M{x} 4V40" for x, _ in ticks]
    assert words(picture) == ("wide", "0 0 640 62", "Timeline of trials", "Timeline of trials")


@pytest.mark.parametrize("end", [0, 1])
def test_a_timeline_lasts_at_least_a_second(end: int) -> None:
    picture = figures.timeline([spans((0, end))])
    assert labels(picture) == [("8.0", "40", "0 s"), ("632.0", "40", "1 s")]
    assert places(picture, "span complete", "x", "width") == [("8.0", "623.0" if end else "3.0")]


@pytest.mark.parametrize(
    ("end", "last", "ticks"),
    [
        (8, "8 s", 9), (9, "5 s", 2), (40, "40 s", 9), (41, "40 s", 5), (119, "90 s", 4), (120, "2 min", 5), (480, "8 min", 9), (481, "5 min", 2),
        (7199, "90 min", 4), (7200, "2 h", 5), (28_800, "8 h", 9), (691_200, "192 h", 9), (691_201, "168 h", 8),
    ],
)  # fmt: skip
def test_a_time_axis_has_at_most_nine_round_times(end: int, last: str, ticks: int) -> None:
    shown = labels(figures.timeline([spans((0, end))]))
    assert len(shown) == ticks
    assert shown[-1][2] == last


@pytest.mark.parametrize(("rows", "pitch"), [(1, 16), (16, 16), (17, 6)])
def test_many_rows_are_lower(rows: int, pitch: int) -> None:
    picture = figures.timeline([spans((0, 9))] * rows)
    assert places(picture, "span complete", "y", "height") == [
        (str(8 + pitch * i), str(pitch - 3)) for i in range(rows)
    ]
    assert words(picture)[1] == f"0 0 640 {8 + pitch * rows + 22}"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (10_799, "2 h")]
)
def test_a_time_is_in_whole_units(seconds: int, text: str) -> None:
    assert figures._time(seconds) == text
