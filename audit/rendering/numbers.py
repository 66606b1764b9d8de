"""Numbers and names as shown on the page: rounded against the claim, and unable to hide or reorder anything."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Any

from markupsafe import Markup

from froc.visible import visible as shown

CUT = Decimal("0.01")
LONGEST = 10_000
"""Characters of a name shown in the appendix; the evidence has longer ones in full."""


def visible(value: Any) -> Any:
    """Text that can neither hide nor reorder anything; other values and existing markup unchanged."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cut(value: str, most: int = 48) -> str:
    """The first characters of a visible text, with an ellipsis where it was cut."""
    text = str(visible(value[: most + 1]))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def whole(value: str) -> str:
    """A text in full, up to LONGEST characters."""
    more = len(value) - LONGEST
    return str(visible(value[:LONGEST])) + (f" … and {more} more characters" if more > 0 else "")


def up(value: str) -> str:
    """A bound as a percentage, rounded up: never smaller than it is."""
    return f"{(Decimal(value) * 100).quantize(CUT, ROUND_CEILING)}%"


def down(value: str) -> str:
    """A lower bound as a percentage, rounded down."""
    return f"{(Decimal(value) * 100).quantize(CUT, ROUND_FLOOR)}%"


def measured(value: str) -> str:
    """A measured mean as a percentage."""
    return f"{(Decimal(value) * 100).quantize(CUT, ROUND_HALF_EVEN)}%"


def percent(value: str) -> str:
    """A chosen number (such as a budget) as an exact percentage."""
    return f"{(Decimal(value) * 100).normalize():f}%"


def small(value: str) -> str:
    """A p-value, rounded up to two digits."""
    number = Decimal(value)
    if number >= CUT / 10:
        return f"{number.quantize(CUT / 10, ROUND_CEILING)}"
    return f"{number.quantize(Decimal(1).scaleb(number.adjusted() - 1), ROUND_CEILING):.1e}" if number else "0"


def short(value: str) -> str:
    """The first 16 digits of a fingerprint in groups of four."""
    return " ".join(value[i : i + 4] for i in range(0, 16, 4))


def params(value: Mapping[str, Any]) -> str:
    """Hyperparameters on one line, decimal numbers to four digits; the sealed list has them in full."""
    return cut(", ".join(f"{name} {four(value[name])}" for name in sorted(value)), 240)


def four(value: Any) -> str:
    """A decimal number with four digits; other values unchanged."""
    try:
        return f"{float(value):.4g}" if isinstance(value, str) else str(value)
    except ValueError:
        return str(value)


def capitalised(text: str) -> str:
    """A clause as the beginning of a sentence: its first letter in upper case."""
    return f"{text[:1].upper()}{text[1:]}"


def count(number: int, singular: str, many: str = "") -> str:
    """`1 query`, `2 queries`."""
    return f"{number} {singular if number == 1 else many or singular + 's'}"
