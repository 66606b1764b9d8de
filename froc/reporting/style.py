"""Colours, markers and matplotlib settings that all figures share."""

from typing import Any

GREEN, RED, GREY, INK = "#1b7f4d", "#c2452d", "#9aa3ab", "#20262c"
COLOURS = ("#1f4e8c", "#c2452d", "#1b7f4d", "#8a5a00", "#6b3fa0", "#20262c")
METHOD_COLOURS = ("#0b6e99", "#c2452d", "#1b7f4d", "#8a5a9e", "#c98a1b", "#555f69", "#2f4b7c", "#9c3f6c")
MARKERS = "osD^vP*Xh<>p"
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}
"""matplotlib rcParams."""


def axis_limits(values: Any) -> tuple[float, float]:
    """Limits of an axis with a margin around the values."""
    low, high = float(values.min()), float(values.max())
    edge = 0.08 * max(high - low, 0.5)
    return low - edge, high + edge
