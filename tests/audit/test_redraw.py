"""Lines of losses.csv that a seed draws, from a file of twelve losses."""

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
def test_a_draw_of_all_rows_has_every_line_from_line_2(config: str | None) -> None:
    lines = [line for line, row in enumerate(ROWS, start=2) if config is None or row.startswith(config)]
    assert redraw.draw_together(LOSSES, 7, 100, config) == lines
    assert redraw.draw(LOSSES, 7, 100, redraw.Scope((config,) if config else None)) == lines
    assert redraw.pool(LOSSES, config) == len(lines)


def test_a_draw_has_the_requested_number_of_rows_and_a_larger_draw_contains_it() -> None:
    few, many = redraw.draw_together(LOSSES, 7, 2), redraw.draw_together(LOSSES, 7, 5)
    assert (len(few), len(many)) == (2, 5)
    assert set(few) < set(many) <= set(range(2, 14))
    # of each configuration under each risk
    assert len(redraw.draw(LOSSES, 7, 2)) == 8
