"""Bisection of monotone predicates: one for floats, one for whole numbers.

Not `scipy.optimize.brentq`: what is searched are p-values that were rounded up to six digits, step functions without a root,
and certificates must come out of the same sequence of evaluations on every machine.
"""

from collections.abc import Callable


def bracket(holds: Callable[[float], bool], low: float, high: float, tolerance: float) -> tuple[float, float]:
    """(below, above) at most `tolerance` apart: `holds` is false at `below` and true at `above`.

    It must be false at `low`, true at `high` and change once between them; neither end is evaluated.
    """
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def first_integer(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest whole number above `low` at which `holds`; it must be false at `low`, true at `high` (not evaluated)."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
