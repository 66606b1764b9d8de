"""Numbers of certificates, rounded against the claim: as documents hold them, and to three decimals as people read them.

Imports nothing slow.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

RELATIVE_MARGIN = Decimal("1e-12")
"""Rounding gives this much (relative) away, so that no machine's last bits can round in the claim's favour."""
MIN_P_VALUE = Decimal("1e-300")
"""No p-value is printed smaller; a bound that underflows to 0 has not proved certainty."""
THOUSANDTH = Decimal("0.001")


def up_p(value: float, *, exact: bool = False) -> float:
    """A p-value rounded up to 6 significant digits; at most 1, never 0 but where 0 is exact."""
    if exact and value == 0:
        return 0.0
    exactly = max(Decimal(float(value)) * (1 + RELATIVE_MARGIN), MIN_P_VALUE)
    return min(1.0, float(Context(prec=6, rounding=ROUND_CEILING).plus(exactly)))


def up(value: float, decimals: int = 6, *, exact: bool = False) -> float:
    """A risk rounded up to so many decimals; at most 1. exact: a mean, which is known to the last digit."""
    step = Decimal(1).scaleb(-decimals)
    precise = Decimal(str(round(value, 12))) if exact else Decimal(value) * (1 + RELATIVE_MARGIN)
    return min(1.0, float(precise.quantize(step, ROUND_CEILING)))


def down(value: float, decimals: int = 6) -> float:
    """A radius rounded down to so many decimals."""
    return float((Decimal(value) * (1 - RELATIVE_MARGIN)).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR))


def at_most(value: float) -> str:
    """An upper bound: never smaller than it is."""
    return str(_exact(value).quantize(THOUSANDTH, ROUND_CEILING))


def at_least(value: float) -> str:
    """A lower bound: never larger than it is."""
    return str(_exact(value).quantize(THOUSANDTH, ROUND_FLOOR))


def _exact(value: float) -> Decimal:
    # bounds have six decimals; what a float adds behind them is no part of them
    return Decimal(str(round(float(value), 9)))
