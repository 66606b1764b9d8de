"""Rounding of certificate numbers against the claim: for documents, and to three decimals for people.

Imports nothing slow.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

RELATIVE_MARGIN = Decimal("1e-12")
"""Relative margin that is added before rounding, so that floating-point error never favours the claim."""
MIN_P_VALUE = Decimal("1e-300")
"""Smallest p-value that is reported; one that underflows to 0 is no certainty."""
THOUSANDTH = Decimal("0.001")


def up_p(value: float, *, exact: bool = False) -> float:
    """A p-value rounded up to 6 significant digits; at most 1, and 0 only where 0 is exact."""
    if exact and value == 0:
        return 0.0
    exactly = max(Decimal(float(value)) * (1 + RELATIVE_MARGIN), MIN_P_VALUE)
    return min(1.0, float(Context(prec=6, rounding=ROUND_CEILING).plus(exactly)))


def up(value: float, decimals: int = 6, *, exact: bool = False) -> float:
    """A risk rounded up to `decimals`; at most 1. exact: a measured mean, to which no margin is added.

    >>> up(0.12345671), down(0.12345679)
    (0.123457, 0.123456)
    """
    step = Decimal(1).scaleb(-decimals)
    precise = Decimal(str(round(value, 12))) if exact else Decimal(value) * (1 + RELATIVE_MARGIN)
    return min(1.0, float(precise.quantize(step, ROUND_CEILING)))


def down(value: float, decimals: int = 6) -> float:
    """A radius rounded down to `decimals`."""
    return float((Decimal(value) * (1 - RELATIVE_MARGIN)).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR))


def at_most(value: float) -> str:
    """An upper bound in three decimals, rounded up."""
    return str(_exact(value).quantize(THOUSANDTH, ROUND_CEILING))


def at_least(value: float) -> str:
    """A lower bound in three decimals, rounded down."""
    return str(_exact(value).quantize(THOUSANDTH, ROUND_FLOOR))


def _exact(value: float) -> Decimal:
    # bounds have six decimals; the rest is floating-point error
    return Decimal(str(round(float(value), 9)))
