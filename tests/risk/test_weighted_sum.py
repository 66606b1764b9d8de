"""The combined risk, and claims about listed populations, through the certificate."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from froc.bounds import FloatArray, binomial
from froc.errors import InputError
from froc.loss_table import SCALE, check
from froc.risk import weighted_sum
from froc.risk.certificate import Candidate, certify, decide
from froc.risk.claim import Claim
from froc.risk.shift import shifted, shrunk

RISKS = ("forgetting", "utility")
HALF = dict.fromkeys(RISKS, 0.5)


def claim(bound: str = "binomial", **fields: Any) -> Claim:
    budget = fields.pop("budget", dict.fromkeys(RISKS, 0.1))
    return Claim(budget, fields.pop("bounds", dict.fromkeys(RISKS, bound)), dict.fromkeys(RISKS, "query"), **fields)


def listed(count: int) -> list[Candidate]:
    return [Candidate(f"c{i}", "", {}, 1 / (i + 1)) for i in range(count)]


def matrix(*sums: int, n: int = 200) -> np.ndarray:
    """(m, n): row i has sums[i] losses of 1."""
    return (np.arange(n)[None, :] < np.array(sums)[:, None]).astype(np.int16) * SCALE


def exact(k: int, n: int) -> weighted_sum.PValueFunction:
    return lambda alpha: binomial.p_value_from_count(np.full(len(alpha), k), n, alpha)


@pytest.mark.parametrize(("k", "j", "budget"), [(3, 8, 0.08), (0, 0, 0.02), (10, 2, 0.05), (40, 3, 0.1)])
def test_p_value_says_what_the_sum_of_bounds_says(k: int, j: int, budget: float) -> None:
    """p <= delta exactly where 0.4 U_1(delta / 2) + 0.6 U_2(delta / 2) <= c."""
    p = weighted_sum.p_value((0.4, exact(k, 200)), (0.6, exact(j, 150)), budget, 1)[0]
    for delta in (0.9 * p, 1.1 * p):
        if delta < 1:
            upper = 0.4 * binomial.upper_from_count(np.array([k]), 200, delta / 2) + 0.6 * binomial.upper_from_count(
                np.array([j]), 150, delta / 2
            )
            assert (upper[0] <= budget) == (p <= delta)


def test_no_part_is_asked_at_a_level_of_0_or_1() -> None:
    """Where bounds may have no value; from 1 on every risk is below the level."""
    asked: list[float] = []

    def tail(levels: FloatArray) -> FloatArray:
        asked.extend(levels.tolist())
        return np.full(len(levels), 0.25)

    costs = np.array([0.0, 0.25, 0.5 - 1e-14, 0.5, 0.75])
    assert weighted_sum._at(0.5, tail, costs).tolist() == [0.25, 0.25, 0.25, 0.0, 0.0]
    assert asked == [1e-12, 0.5, 1 - 1e-12, 1 - 1e-12, 1 - 1e-12]


@pytest.mark.parametrize("first", [True, False])
def test_where_one_p_value_jumps_the_other_one_decides(first: bool) -> None:
    """As in a census: 1 below a level of 0.05 and 0 from there on; the other is 0.2 at every level."""

    def jumps(alpha: Any) -> Any:
        return np.where(alpha < 0.05, 1.0, 0.0)

    def constant(alpha: Any) -> Any:
        return np.full(len(alpha), 0.2)

    parts = (jumps, constant) if first else (constant, jumps)
    assert weighted_sum.p_value((0.5, parts[0]), (0.5, parts[1]), 0.1, 1).tolist() == pytest.approx([0.4])


def test_combined_risk_is_valid_where_each_part_is_lopsided() -> None:
    """True risks (0.2, 0.004): the combined one, 0.102, is just above 0.1 and may be certified at most 10 % of times."""
    rng, repeats = np.random.default_rng(1), 3000
    first, second = rng.binomial(200, 0.2, repeats), rng.binomial(200, 0.004, repeats)
    tails = [lambda alpha, k=k: binomial.p_value_from_count(k, 200, alpha) for k in (first, second)]
    p = weighted_sum.p_value((0.5, tails[0]), (0.5, tails[1]), 0.1, repeats)
    assert (p <= 0.1).mean() <= 0.1 + 4 * math.sqrt(0.09 / repeats)


def test_certificate_of_the_combined_risk() -> None:
    tested_claim = claim(budget={"combined": 0.06}, weights=HALF)
    certificate = decide({"forgetting": matrix(4, 20), "utility": matrix(6, 2)}, listed(2), tested_claim)
    assert certificate["certified"] == ["c0"]
    assert set(certificate["n"]) == set(RISKS)
    row = certificate["candidates"][0]
    assert set(row["p_values"]) == {"combined"}
    assert row["empirical"]["combined"] == 0.025
    share = 0.1 / 4
    parts = [row["cur"][risk]["simultaneous"] for risk in RISKS]
    assert parts[0] == pytest.approx(binomial.upper_from_count(np.array([4]), 200, share)[0], abs=2e-6)
    assert row["cur"]["combined"]["simultaneous"] == pytest.approx(sum(parts) / 2, abs=2e-6)
    radius = row["robust_radius"]["combined"]
    assert sum(shifted(part, radius) for part in parts) / 2 == pytest.approx(0.06, abs=1e-4)
    alone = decide({"forgetting": matrix(4, 20), "utility": matrix(6, 2)}, listed(2), claim())
    assert alone["candidates"][0]["robust_radius"].keys() == set(RISKS)


def test_budgets_hold_within_the_radius() -> None:
    tested_claim, losses = claim(radius=0.05), {"forgetting": matrix(2), "utility": matrix(1)}
    certificate = decide(losses, listed(1), tested_claim)
    row = certificate["candidates"][0]
    assert row["p_values"]["forgetting"] == pytest.approx(binom.cdf(2, 200, shrunk(0.1, 0.05)), rel=1e-5)
    plain = decide(losses, listed(1), claim())["candidates"][0]
    for risk in RISKS:
        wanted = shifted(plain["cur"][risk]["simultaneous"], 0.05)
        assert row["cur"][risk]["simultaneous"] == pytest.approx(wanted, abs=2e-6)
        assert row["robust_radius"][risk] == plain["robust_radius"][risk]
    assert "within a Hellinger radius of 0.05" in certificate["reason"]
    with pytest.raises(InputError, match=r"even a risk of 0 reaches it at 0\.2265"):
        decide(losses, listed(1), claim(radius=0.23))


def rows(sums: dict[str, tuple[int, int]], n: dict[str, tuple[int, int]]) -> pl.DataFrame:
    """One configuration; per risk, losses of 1 and queries of the search, then of calibration."""
    parts = []
    for risk in sums:
        for split, k, size in zip(("search", "calibration"), sums[risk], n[risk], strict=True):
            loss = (np.arange(size) < k).astype(float)
            parts.append(
                pl.DataFrame({"query": [f"{risk}{split}{i}" for i in range(size)], "loss": loss}).with_columns(
                    config=pl.lit("c0"), risk=pl.lit(risk), split=pl.lit(split)
                )
            )
    return check(pl.concat(parts))


def test_a_census_is_arithmetic_over_both_splits() -> None:
    table = rows({"forgetting": (0, 9), "utility": (0, 1)}, {"forgetting": (20, 80), "utility": (20, 80)})
    kinds = {"forgetting": "census"}
    bounds = {"forgetting": "census", "utility": "binomial"}
    tested_claim = claim(bounds=bounds, population=kinds, listed={"forgetting": 100})
    row = certify(table, listed(1), tested_claim)["candidates"][0]
    assert row["empirical"]["forgetting"] == row["cur"]["forgetting"]["simultaneous"] == 0.09
    assert row["p_values"]["forgetting"] == 0.0
    assert row["n"] == {"forgetting": 100, "utility": 80}
    worse = rows({"forgetting": (9, 2), "utility": (0, 1)}, {"forgetting": (20, 80), "utility": (20, 80)})
    assert certify(worse, listed(1), tested_claim)["candidates"][0]["p_values"]["forgetting"] == 1.0
    with pytest.raises(InputError, match="all of the 101 listed"):
        certify(table, listed(1), claim(bounds=bounds, population=kinds, listed={"forgetting": 101}))


def test_a_sample_of_a_list_counts_what_the_search_saw_as_known() -> None:
    """Certified is the mean of the whole list: known units and, for the rest, a bound without replacement."""
    table = rows({"forgetting": (5, 3), "utility": (0, 1)}, {"forgetting": (20, 80), "utility": (20, 80)})
    tested_claim = claim(
        bounds={"forgetting": "hypergeometric", "utility": "binomial"},
        population={"forgetting": "sample"}, listed={"forgetting": 200},
    )  # fmt: skip
    row = certify(table, listed(1), tested_claim)["candidates"][0]
    from scipy.stats import hypergeom

    # at most 20 of 200 may be lost; 5 are, so the other 180 may hold 15: reject "16 or more" on 3 of 80
    assert row["p_values"]["forgetting"] == pytest.approx(hypergeom.cdf(3, 180, 16, 80), rel=1e-5)
    most = max(m for m in range(181) if hypergeom.cdf(3, 180, m, 80) > 0.1)
    assert row["cur"]["forgetting"]["pointwise"] == pytest.approx((5 + most) / 200, abs=2e-6)
    with pytest.raises(InputError, match="more units are measured than the 90"):
        certify(table, listed(1), claim(
            bounds={"forgetting": "hypergeometric", "utility": "binomial"},
            population={"forgetting": "sample"}, listed={"forgetting": 90}))  # fmt: skip


def test_a_sample_is_covered_however_the_search_chose() -> None:
    """Pick, of 30 configurations, the one with the fewest losses on 20 searched units of a list of 100; certify on 40 more."""
    rng, repeats, many = np.random.default_rng(3), 1500, 100
    wrong = 0
    for _ in range(repeats):
        lists = np.stack([rng.permutation(np.arange(many) < 11) for _ in range(30)])
        order = rng.permutation(many)
        best = lists[int(lists[:, order[:20]].sum(axis=1).argmin())][order]
        seen, k = int(best[:20].sum()), int(best[20:60].sum())
        from froc.risk.claim import Evidence
        from froc.risk.p_values import raw_p

        tested_claim = claim(
            budget={"forgetting": 0.1}, bounds={"forgetting": "hypergeometric"},
            population={"forgetting": "sample"}, listed={"forgetting": many},
        )  # fmt: skip
        evidence = Evidence(matrix(k, n=40), np.array([seen * SCALE]), 20, 40)
        wrong += bool(raw_p(tested_claim, "forgetting", evidence, 1, 0.1)[0] <= 0.1)
    assert wrong / repeats <= 0.1 + 4 * math.sqrt(0.09 / repeats)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weights": HALF}, "needs its budget and its weights"),
    ({"budget": {"combined": 0.1}}, "needs its budget and its weights"),
    ({"budget": {"combined": 0.1}, "weights": {"forgetting": 0.5}}, "two weights"),
    ({"budget": {"combined": 0.1}, "weights": dict.fromkeys(RISKS, 0.7)}, "sum to more than 1"),
    ({"budget": {"combined": 0.1}, "weights": HALF, "procedure": "e-bh"}, "e-values"),
    ({"population": {"forgetting": "everybody"}}, "no population is called 'everybody'"),
    ({"population": {"forgetting": "sample"}}, "is not for population sample"),
    ({"bound": "hypergeometric"}, "is not for population queries"),
    ({"sequential": True}, "stops early"),
    ({"procedure": "e-bh"}, "needs e-values"),
    ({"radius": 1.0}, "outside"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_claims_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decide({risk: matrix(1) for risk in RISKS}, listed(1), claim(**fields))


def test_screening_certifies_nothing() -> None:
    losses = {"forgetting": matrix(0, 1, 40), "utility": matrix(0, 2, 0)}
    certificate = decide(losses, listed(3), claim("mixture", procedure="e-bh"))
    assert certificate["promise"] == "false-discovery"
    assert certificate["screened"] == ["c0", "c1"]
    assert certificate["certified"] == []
    assert certificate["chosen"] is certificate["closest"] is None
    assert not any(row["certified"] for row in certificate["candidates"])
    assert "nothing is certified, each alone may be wrong" in certificate["reason"]
