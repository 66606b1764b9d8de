"""Bounds as people read them: to three decimals, against the claim. Imports nothing slow."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

STEP = Decimal("0.001")


def at_most(value: float) -> str:
    """An upper bound: never smaller than it is."""
    return str(_exact(value).quantize(STEP, ROUND_CEILING))


def at_least(value: float) -> str:
    """A lower bound: never larger than it is."""
    return str(_exact(value).quantize(STEP, ROUND_FLOOR))


def _exact(value: float) -> Decimal:
    # bounds have six decimals; what a float adds behind them is no part of them
    return Decimal(str(round(float(value), 9)))
