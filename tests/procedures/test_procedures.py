"""Family-wise procedures against their definitions."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control import control_fwer

from froc.errors import InputError
from froc.plugins import parse
from froc.procedures import FloatArray, certified, find, first_levels, names, weighted_holm

VECTORS = Path(__file__).parents[1] / "data" / "risk_vectors.json"
DELTA = 0.1
FAMILY_WISE = [*names(), "fixed-sequence:starts=2", "fixed-sequence:starts=3"]
SCREENS = names("false-discovery")
P_VALUES = st.one_of(st.floats(0, 1), st.floats(0, 0.1), st.sampled_from([0.0, 0.05, 0.1, 1.0]))
WEIGHTS = st.floats(0.01, 10)
FAMILIES = st.lists(st.tuples(P_VALUES, WEIGHTS), min_size=1, max_size=6)


def arrays(family: list[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """(m,) p-values and (m,) weights."""
    p_values, weights = zip(*family, strict=True)
    return np.array(p_values), np.array(weights)


def closed_test(p_values: FloatArray, weights: FloatArray, delta: float) -> list[bool]:
    """Reject i where every set with i in it has a member j with p_j <= delta w_j / (sum of the set's weights)."""
    members = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(members, size)]

    def rejected(subset: tuple[int, ...]) -> bool:
        total = math.fsum(weights[j] for j in subset)
        return any(p_values[j] <= delta * weights[j] / total for j in subset)

    return [all(rejected(subset) for subset in sets if i in subset) for i in members]


def near(p_values: FloatArray, weights: FloatArray, delta: float) -> bool:
    """Whether some p-value is so near to a level that a float's last digit decides."""
    members = range(len(p_values))
    sums = [math.fsum(weights[j] for j in s) for k in range(1, 7) for s in itertools.combinations(members, k)]
    levels = [delta * weights[i] / total for i in members for total in sums]
    return any(0 < abs(p - level) < 1e-12 for p in p_values for level in levels)


@given(FAMILIES)
def test_weighted_holm_is_the_closed_test_of_weighted_bonferroni(family: list[tuple[float, float]]) -> None:
    p_values, weights = arrays(family)
    if near(p_values, weights, DELTA):
        return
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


@pytest.mark.parametrize("name", [*FAMILY_WISE, *SCREENS])
@given(family=FAMILIES, index=st.integers(0, 5), factor=st.floats(0, 1))
def test_smaller_p_values_never_lose_a_rejection(
    name: str, family: list[tuple[float, float]], index: int, factor: float
) -> None:
    p_values, weights = arrays(family)
    before = certified(name, p_values, weights, DELTA)
    p_values[index % len(p_values)] *= factor
    assert (certified(name, p_values, weights, DELTA) >= before).all()


@pytest.mark.parametrize("name", [*FAMILY_WISE, *SCREENS])
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


@given(FAMILIES)
def test_mapie_runs_weighted_holm_and_its_own_holm_agrees(family: list[tuple[float, float]]) -> None:
    p_values, weights = arrays(family)
    own = control_fwer(p_values, DELTA, weighted_holm.steps()(weights))
    assert own.tolist() == np.flatnonzero(certified("weighted-holm", p_values, weights, DELTA)).tolist()
    if not near(p_values, np.ones(len(weights)), DELTA):
        holm = control_fwer(p_values, DELTA, "bonferroni_holm")
        assert holm.tolist() == np.flatnonzero(certified("holm", p_values, weights, DELTA)).tolist()


@given(FAMILIES)
def test_fallback_by_definition(family: list[tuple[float, float]]) -> None:
    p_values, weights = arrays(family)
    own, passed, wanted = DELTA * weights / weights.sum(), 0.0, []
    for p, level in zip(p_values, own, strict=True):
        wanted.append(bool(p <= level + passed))
        passed = level + passed if wanted[-1] else 0.0
    assert certified("fallback", p_values, weights, DELTA).tolist() == wanted


def test_several_starts_walk_on_past_each_other() -> None:
    p_values = np.array([0.01, 0.5, 0.02, 0.01, 0.04, 0.06, 0.01])
    result = certified("fixed-sequence:starts=2", p_values, np.ones(7), DELTA)
    # starts at 0 and 3, each at 0.05: the first stops at once, the second at its third place
    assert result.tolist() == [True, False, False, True, True, False, False]
    assert certified("fixed-sequence:starts=99", p_values, np.ones(7), 0.1).tolist() == (p_values <= 0.1 / 7).tolist()


@given(st.lists(P_VALUES, min_size=1, max_size=8))
def test_screens_by_definition(values: list[float]) -> None:
    p_values, m = np.array(values), len(values)
    ranked = np.sort(p_values)
    for name, factor in (("e-bh", 1.0), ("benjamini-yekutieli", sum(1 / i for i in range(1, m + 1)))):
        levels = np.arange(1, m + 1) * DELTA / (m * factor)
        if (abs(ranked - levels) < 1e-12).any():
            continue
        passing = np.flatnonzero(ranked <= levels)
        count = passing[-1] + 1 if len(passing) else 0
        assert certified(name, p_values, np.ones(m), DELTA).sum() == (p_values <= ranked[count - 1]).sum() * (count > 0)
        assert find(name).promise == "false-discovery"


def test_e_bh_keeps_its_promise_where_p_values_from_running_maxima_would_not() -> None:
    """200 dependent true nulls among 250: the share of false ones among those found stays below delta on average."""
    rng, m, null = np.random.default_rng(4), 250, 200
    shares = []
    for _ in range(200):
        common = rng.normal()
        z = 0.7 * common + math.sqrt(1 - 0.49) * rng.normal(size=m)
        z[null:] += 4.0
        e_values = np.exp(3.0 * z - 4.5)
        result = certified("e-bh", 1 / np.maximum(1, e_values), np.ones(m), DELTA)
        shares.append(result[:null].sum() / max(1, result.sum()))
    assert np.mean(shares) <= DELTA


def test_names_with_settings() -> None:
    assert parse("fixed-sequence:starts=4") == ("fixed-sequence", {"starts": 4})
    for bad, why in (("fixed-sequence:starts", "no setting"), ("fixed-sequence:stops=2", "no hyperparameter"),
                     ("fixed-sequence:starts=two", "makes no sense"), ("holm:starts=2", "no hyperparameter")):  # fmt: skip
        with pytest.raises(InputError, match=why):
            find(bad)


def test_fixed_sequence_stops_at_its_first_miss() -> None:
    p_values = np.array([0.01, 0.09, 0.11, 0.0, 0.0])
    assert certified("fixed-sequence", p_values, np.ones(5), DELTA).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("name", [*FAMILY_WISE, *SCREENS])
def test_edges(name: str) -> None:
    item = np.ones(1)
    assert certified(name, np.zeros(0), np.zeros(0), DELTA).tolist() == []
    assert first_levels(name, np.zeros(0), DELTA).shape == (0,)
    assert certified(name, np.array([DELTA]), item, DELTA).tolist() == [True]
    assert certified(name, np.array([np.nextafter(DELTA, 1)]), item, DELTA).tolist() == [False]
    assert certified(name, np.zeros(4), np.ones(4), DELTA).all()
    assert not certified(name, np.ones(4), np.ones(4), DELTA).any()
    for bad in (math.nan, -0.1, 1.1):
        with pytest.raises(InputError, match="p-value"):
            certified(name, np.array([0.0, bad]), np.ones(2), DELTA)
    for bad in (math.nan, 0.0, -1.0, math.inf):
        with pytest.raises(InputError, match="weight"):
            certified(name, np.zeros(2), np.array([1.0, bad]), DELTA)


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="did you mean 'bonferroni'"):
        certified("bonferoni", np.zeros(1), np.ones(1), DELTA)


def test_shared_vectors() -> None:
    for row in json.loads(VECTORS.read_text(encoding="utf-8"))["fwer"]:
        p_values = np.array(row["p"])
        for name in ("bonferroni", "holm", "fixed-sequence"):
            result = certified(name, p_values, np.ones(len(p_values)), row["delta"])
            assert np.flatnonzero(result).tolist() == row[name.replace("-", "_")]
