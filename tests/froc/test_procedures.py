"""Family-wise procedures against their definitions."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc.errors import InputError
from froc.procedures import PROCEDURES, Reals, certified, first_levels

VECTORS = Path(__file__).parents[3] / "shared" / "risk_vectors.json"
DELTA = 0.1
P_VALUES = st.one_of(st.floats(0, 1), st.floats(0, 0.1), st.sampled_from([0.0, 0.05, 0.1, 1.0]))
WEIGHTS = st.floats(0.01, 10)
FAMILIES = st.lists(st.tuples(P_VALUES, WEIGHTS), min_size=1, max_size=6)


def arrays(family: list[tuple[float, float]]) -> tuple[Reals, Reals]:
    """(m,) p-values and (m,) weights."""
    p_values, weights = zip(*family, strict=True)
    return np.array(p_values), np.array(weights)


def closed_test(p_values: Reals, weights: Reals, delta: float) -> list[bool]:
    """Reject i where every set with i in it has a member j with p_j <= delta w_j / (sum of the set's weights)."""
    members = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(members, size)]

    def rejected(some: tuple[int, ...]) -> bool:
        total = math.fsum(weights[j] for j in some)
        return any(p_values[j] <= delta * weights[j] / total for j in some)

    return [all(rejected(some) for some in sets if i in some) for i in members]


@given(FAMILIES)
def test_weighted_holm_is_the_closed_test_of_weighted_bonferroni(family: list[tuple[float, float]]) -> None:
    p_values, weights = arrays(family)
    assert certified("weighted-holm", p_values, weights, DELTA).tolist() == closed_test(p_values, weights, DELTA)


@given(FAMILIES)
def test_holm_is_the_closed_test_of_bonferroni(family: list[tuple[float, float]]) -> None:
    p_values, _ = arrays(family)
    equal = np.ones(len(p_values))
    wanted = closed_test(p_values, equal, DELTA)
    assert certified("holm", p_values, equal, DELTA).tolist() == wanted
    assert certified("weighted-holm", p_values, equal, DELTA).tolist() == wanted


@given(FAMILIES)
def test_bonferroni_and_fixed_sequence_by_definition(family: list[tuple[float, float]]) -> None:
    p_values, weights = arrays(family)
    small = p_values <= DELTA / len(p_values)
    assert (certified("bonferroni", p_values, weights, DELTA) == small).all()
    unbroken = np.logical_and.accumulate(p_values <= DELTA)
    assert (certified("fixed-sequence", p_values, weights, DELTA) == unbroken).all()


@pytest.mark.parametrize("name", PROCEDURES)
@given(family=FAMILIES, index=st.integers(0, 5), factor=st.floats(0, 1))
def test_smaller_p_values_never_lose_a_rejection(
    name: str, family: list[tuple[float, float]], index: int, factor: float
) -> None:
    p_values, weights = arrays(family)
    before = certified(name, p_values, weights, DELTA)
    p_values[index % len(p_values)] *= factor
    assert (certified(name, p_values, weights, DELTA) >= before).all()


@pytest.mark.parametrize("name", PROCEDURES)
def test_first_levels_are_the_levels_before_any_rejection(name: str) -> None:
    weights = 1.0 / np.arange(1, 6)
    levels = first_levels(name, weights, DELTA)
    assert math.fsum(levels) <= DELTA * (1 + 1e-12)
    for i, level in enumerate(levels):
        for p, passes in ((level * (1 - 1e-9), level > 0), (level * (1 + 1e-9) + 1e-12, False)):
            p_values = np.ones(5)
            p_values[i] = p
            assert certified(name, p_values, weights, DELTA)[i] == passes
    assert first_levels(name, np.ones(1), DELTA).tolist() == [DELTA]


def test_fixed_sequence_stops_at_its_first_miss() -> None:
    p_values = np.array([0.01, 0.09, 0.11, 0.0, 0.0])
    assert certified("fixed-sequence", p_values, np.ones(5), DELTA).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("name", PROCEDURES)
def test_edges(name: str) -> None:
    one = np.ones(1)
    assert certified(name, np.zeros(0), np.zeros(0), DELTA).tolist() == []
    assert certified(name, np.array([DELTA]), one, DELTA).tolist() == [True]
    assert certified(name, np.array([np.nextafter(DELTA, 1)]), one, DELTA).tolist() == [False]
    assert certified(name, np.zeros(4), np.ones(4), DELTA).all()
    assert not certified(name, np.ones(4), np.ones(4), DELTA).any()
    for bad in (math.nan, -0.1, 1.1):
        with pytest.raises(InputError, match="p-value"):
            certified(name, np.array([0.0, bad]), np.ones(2), DELTA)
    for bad in (math.nan, 0.0, -1.0, math.inf):
        with pytest.raises(InputError, match="weight"):
            certified(name, np.zeros(2), np.array([1.0, bad]), DELTA)


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="there are: weighted-holm, holm"):
        certified("bonferoni", np.zeros(1), np.ones(1), DELTA)


@pytest.mark.skipif(not VECTORS.is_file(), reason="the shared vectors are not here")
def test_shared_vectors() -> None:
    for row in json.loads(VECTORS.read_text(encoding="utf-8"))["fwer"]:
        p_values = np.array(row["p"])
        for name in ("bonferroni", "holm", "fixed-sequence"):
            found = certified(name, p_values, np.ones(len(p_values)), row["delta"])
            assert np.flatnonzero(found).tolist() == row[name.replace("-", "_")]
