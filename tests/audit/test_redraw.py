"""Lines of losses.csv that a seed draws, from a file that is read at a glance."""

import pytest

from froc.audit import redraw

ROWS = [
    f"{config},calibration,{risk},u{i},q{i},{1000 * (i % 2)}"
    for config in ("c0000", "c0001")
    for risk in ("forgetting", "utility")
    for i in range(3)
]
LOSSES = ("config,split,risk,unit,query,loss\n" + "".join(f"{row}\n" for row in ROWS)).encode()


@pytest.mark.parametrize("config", [None, "c0000", "c0001"])
def test_where_all_are_drawn_every_row_is_and_the_first_is_line_2(config: str | None) -> None:
    lines = [line for line, row in enumerate(ROWS, start=2) if config is None or row.startswith(config)]
    assert redraw.draw_together(LOSSES, 7, 100, config) == lines
    assert redraw.draw(LOSSES, 7, 100, redraw.Scope((config,) if config else None)) == lines
    assert redraw.pool(LOSSES, config) == len(lines)


def test_a_draw_is_of_as_many_rows_as_are_asked_for_and_a_larger_one_holds_it() -> None:
    few, many = redraw.draw_together(LOSSES, 7, 2), redraw.draw_together(LOSSES, 7, 5)
    assert (len(few), len(many)) == (2, 5)
    assert set(few) < set(many) <= set(range(2, 14))
    # of each configuration under each risk
    assert len(redraw.draw(LOSSES, 7, 2)) == 8
