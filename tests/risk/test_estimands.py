"""What a certificate's mean is a mean of: said, and tested against populations whose groups differ in size and in risk."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from froc.certification.certify import certify as certify_table
from froc.errors import InputError
from froc.loss_table import SCALE, WEIGHTED, check, matrix
from froc.monitoring.monitor import monitor
from froc.risk.certificate import Candidate, certify, decide
from froc.risk.claim import Claim, estimands, evidence_from_matrix
from froc.risk.p_values import p_values, raw_upper
from froc.risk.ratios import tilted
from froc.risk.rounding import at_most, up

IntArray = NDArray[np.int64]

ONE = [Candidate("c0", "npo", {}, 1.0)]
LARGE, SMALL = 20, 2
"""Queries of a group."""
OFTEN, RISKS = 0.1, (0.5, 0.04)
"""Share of large groups; expected loss per query in large and in small ones."""
GROUP_MEAN = OFTEN * RISKS[0] + (1 - OFTEN) * RISKS[1]
QUERY_MEAN = (OFTEN * LARGE * RISKS[0] + (1 - OFTEN) * SMALL * RISKS[1]) / (OFTEN * LARGE + (1 - OFTEN) * SMALL)


def drawn_groups(groups: int, seed: int, risks: tuple[float, float] = RISKS) -> tuple[IntArray, NDArray[np.bool_]]:
    """Sizes of groups of two sizes, the large of which do worse, and what their queries lose."""
    draw = np.random.default_rng(seed)
    large = draw.random(groups) < OFTEN
    sizes = np.where(large, LARGE, SMALL)
    return sizes, draw.random(int(sizes.sum())) < np.repeat(np.where(large, *risks), sizes)


def drawn(groups: int, seed: int, risks: tuple[float, float] = RISKS) -> pl.DataFrame:
    """The same as a loss table."""
    sizes, losses = drawn_groups(groups, seed, risks)
    unit = [f"g{g}" for g in np.repeat(np.arange(groups), sizes)]
    query = [f"q{i}" for i in range(len(unit))]
    return check(
        pl.DataFrame({"config": "c0", "risk": "forgetting", "query": query, "unit": unit, "loss": losses.astype(float)})
    )


def claim(unit: str, alpha: float = 0.1, bound: str = "betting", **options: Any) -> Claim:
    made = Claim(
        {"forgetting": alpha}, {"forgetting": bound}, {"forgetting": unit},
        largest={"forgetting": LARGE} if unit == WEIGHTED else {}, **options,
    )  # fmt: skip
    return replace(made, estimand=estimands(made))


@pytest.mark.slow
def test_the_mean_of_group_means_hides_what_large_groups_lose_and_says_so() -> None:
    """The expectation over queries is 0.25: certified are the means of groups, of which it is 0.09, and nothing else."""
    assert GROUP_MEAN < 0.1 < QUERY_MEAN / 2
    result = [certify(drawn(3000, seed), ONE, claim("group")) for seed in range(5)]
    assert sum(bool(item["certified"]) for item in result) >= 4
    for item in result:
        assert item["estimand"] == {"forgetting": "mean of group means"}
        assert item["candidates"][0]["empirical_queries"]["forgetting"] > 0.2
        if item["certified"]:
            assert "forgetting at most 0.1 (mean of group means)" in item["reason"]
            assert any("over all queries, the mean was up to 0.2" in line for line in item["warnings"])
    by_queries = [certify(drawn(3000, seed), ONE, claim(WEIGHTED)) for seed in range(12)]
    assert not any(item["certified"] for item in by_queries)
    assert "mean over queries, drawn by group" in by_queries[0]["reason"]
    assert (
        by_queries[0]["candidates"][0]["empirical"]["forgetting"]
        == by_queries[0]["candidates"][0]["empirical_queries"]["forgetting"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["betting", "hoeffding_bentkus", "mixture"])
def test_a_claim_about_queries_errs_no_more_often_than_stated(bound: str) -> None:
    """At a true mean just above the budget, and bounds below the true mean; four standard errors of the draws.

    By the evidence that a certificate is made of, as the first draws show: its document says more, which takes longer.
    """
    made, wrong, below, draws = claim(WEIGHTED, QUERY_MEAN - 1e-3, bound), 0, 0, 100
    for seed in range(draws):
        sizes, losses = drawn_groups(60, seed)
        sums = np.add.reduceat(losses * SCALE, np.cumsum(sizes) - sizes)
        evidence = replace(evidence_from_matrix(sums[None, :]), sizes=sizes)
        certified = p_values(made, "forgetting", {"forgetting": evidence}, 1)[0] <= 0.1
        upper = float(raw_upper(made, "forgetting", evidence, 0.1)[0])
        if seed < 5:
            row = certify(drawn(60, seed), ONE, made)["candidates"][0]
            # units stand in the order of their keyed digests there, which no bound but betting reads
            assert bound == "betting" or (row["certified"], row["cur"]["forgetting"]["pointwise"]) == (
                certified,
                up(upper),
            )
        wrong += certified
        below += upper < QUERY_MEAN
    most = 0.1 * draws + 4 * (draws * 0.1 * 0.9) ** 0.5
    assert max(wrong, below) <= most


def test_a_mean_over_queries_that_is_small_is_certified() -> None:
    certificate = certify(drawn(800, 1, (0.01, 0.01)), ONE, claim(WEIGHTED))
    assert certificate["chosen"] == "c0"
    row = certificate["candidates"][0]
    assert row["empirical"]["forgetting"] < row["cur"]["forgetting"]["pointwise"] < 0.1
    assert certificate["largest"] == {"forgetting": LARGE}


@settings(deadline=None, max_examples=60)
@given(
    groups=st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=12),
    alpha=st.floats(1e-6, 1 - 1e-6),
    spare=st.integers(0, 3),
)
def test_tilted_losses_are_on_the_right_side(groups: list[tuple[int, float]], alpha: float, spare: int) -> None:
    """In [0, 1], never below what they round, at most a thousandth above; and alike for groups of the largest size."""
    sizes = np.array([size for size, _ in groups])
    sums = np.array([[int(size * share * SCALE) for size, share in groups]])
    largest = int(sizes.max()) + spare
    result = tilted(sums, sizes, largest, np.array([alpha]))[0]
    exact = SCALE * (alpha + (sums[0] / SCALE - alpha * sizes) / largest)
    assert result.min() >= 0
    assert result.max() <= SCALE
    assert (result >= exact - 1e-6).all()
    assert (result <= exact + 1 + 1e-5).all()


def test_groups_of_one_size_and_of_single_queries_are_what_they_were() -> None:
    table = check(
        pl.DataFrame(
            {"config": "c0", "risk": "forgetting", "query": [f"q{i}" for i in range(200)], "loss": [0.0, 0.04] * 100}
        )
    )
    single = replace(claim(WEIGHTED), largest={"forgetting": 1})
    rows = [certify(table, ONE, item)["candidates"][0] for item in (claim("query"), single)]
    assert rows[0]["p_values"] == rows[1]["p_values"]
    assert rows[0]["empirical"] == rows[1]["empirical"]
    # bounds that are found by trying are whole thousandths
    wide, step = (row["cur"]["forgetting"]["pointwise"] for row in rows)
    assert wide <= step <= wide + 0.001 + 1e-6


def test_a_bound_is_rejected_from_there_on() -> None:
    made, table = claim(WEIGHTED), drawn(80, 3)
    measured = matrix(table, risk="forgetting", split="calibration", configs=["c0"], unit=WEIGHTED)
    from froc.risk.evidence import _by_queries

    evidence = _by_queries(measured, "forgetting", made)
    upper = float(raw_upper(made, "forgetting", evidence, 0.1)[0])
    # every hundredth, and every thousandth around the bound: the first that is rejected is among them
    nearest = round(1000 * upper) + np.arange(-20, 21)
    levels = np.union1d(np.arange(10, 1000, 10), nearest[(nearest > 0) & (nearest < 1000)]) / 1000
    p = [p_values(made, "forgetting", {"forgetting": evidence}, 1, float(alpha))[0] for alpha in levels]
    for place in (0, 50, -1):
        row = certify(table, ONE, replace(made, budget={"forgetting": float(levels[place])}))["candidates"][0]
        assert row["p_values"]["forgetting"] == p[place]
    assert all(value <= 0.1 or alpha < upper for value, alpha in zip(p, levels, strict=True))
    assert min(p) <= 0.1 < max(p), "some are rejected, and some are not"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"population": {"forgetting": "sample"}, "listed": {"forgetting": 400}, "bound": "betting_without_replacement"}, "populations queries and census"),
        ({"sequential": True}, "populations queries and census"),
        ({"bound": "binomial"}, "0-1 losses of single queries"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        certify(drawn(80, 3), ONE, claim(WEIGHTED, **options))


def test_a_group_that_is_larger_than_planned_is_refused() -> None:
    with pytest.raises(InputError, match="a group has 20 queries, more than the 7 that were planned for"):
        certify(drawn(80, 3), ONE, replace(claim(WEIGHTED), largest={"forgetting": 7}))
    with pytest.raises(InputError, match="needs the size of the largest group"):
        certify(drawn(80, 3), ONE, replace(claim(WEIGHTED), largest={}))
    with pytest.raises(InputError, match="no sizes of groups"):
        decide({"forgetting": np.zeros((1, 9), dtype=np.int16)}, ONE, claim(WEIGHTED))


def test_a_claim_that_names_another_estimand_is_refused() -> None:
    with pytest.raises(InputError, match="another estimand"):
        certify(drawn(80, 3), ONE, replace(claim("group"), estimand={"forgetting": "mean over queries"}))


def test_a_census_says_which_mean_it_is() -> None:
    """Two groups, of one query that is lost and of three that are not."""
    rows = {"query": list("abcd"), "unit": list("ghhh"), "loss": [1.0, 0.0, 0.0, 0.0]}
    table = check(pl.DataFrame({"config": "c0", "risk": "forgetting", **rows}))
    for unit, mean, words in (
        ("query", 0.25, "mean over queries"), (WEIGHTED, 0.25, "mean over queries"), ("group", 0.5, "mean of group means")
    ):  # fmt: skip
        made = replace(
            claim("query", 0.3, "census", population={"forgetting": "census"}), unit={"forgetting": unit}, estimand={}
        )
        certificate = certify(table, ONE, replace(made, estimand=estimands(made)))
        assert certificate["candidates"][0]["empirical"]["forgetting"] == mean
        assert bool(certificate["certified"]) == (mean <= 0.3)
        assert certificate["estimand"]["forgetting"] == f"{words} of a list that is measured completely"
        assert certificate["candidates"][0].get("empirical_queries", {"forgetting": 0.25}) == {"forgetting": 0.25}


def test_an_older_plan_keeps_its_certificate() -> None:
    """It named no estimand: no field, no warning and no word of its certificate is another one."""
    table = drawn(3000, 0)
    new, old = (certify(table, ONE, item) for item in (claim("group"), replace(claim("group"), estimand={})))
    assert new.keys() - old.keys() == {"estimand"}
    assert "empirical_queries" not in old["candidates"][0]
    assert {name for name in old if old[name] != new[name]} == {"candidates", "reason", "warnings"}


def test_on_a_table() -> None:
    certificate = certify_table(drawn(300, 2), 0.1, unit=WEIGHTED)
    assert certificate.document["largest"] == {"forgetting": LARGE}
    assert certificate.document["estimand"] == {"forgetting": "mean over queries, drawn by group"}
    assert certificate.chosen is None
    assert "fresh calibration units" in certificate.reason or "budget of" in certificate.reason
    with pytest.raises(InputError, match="not yet by queries-by-group"):
        monitor(drawn(9, 1), certificate=certificate.document)


def test_closest_is_the_nearest_to_passing_and_has_one_bound() -> None:
    """A bet that was lucky early has a small p-value, however large the mean became."""
    n = 100
    lucky = np.full(n, 1.0)
    lucky[:9] = 0.0
    near = np.tile([0.1, 0.16], n // 2)
    order = matrix(
        check(pl.DataFrame({"config": "c0", "risk": "forgetting", "query": [f"q{i}" for i in range(n)], "loss": 0.0})),
        risk="forgetting", split="calibration", configs=["c0"], unit="query",
    ).units  # fmt: skip
    rows = [
        (c, "forgetting", q, x)
        for c, values in (("lucky", lucky), ("near", near))
        for q, x in zip(order, values, strict=True)
    ]
    table = check(pl.DataFrame(rows, schema=["config", "risk", "query", "loss"], orient="row"))
    listed = [Candidate("lucky", "", {}, 1.0), Candidate("near", "", {}, 0.5)]
    certificate = certify(table, listed, claim("query", 0.12))
    p = [row["p_value"] for row in certificate["candidates"]]
    assert p[0] < p[1]
    assert certificate["closest"]["config"] == "near"
    bound = certificate["candidates"][1]["cur"]["forgetting"]["simultaneous"]
    assert f"with forgetting at most {at_most(bound)} (budget 0.12)" in certificate["reason"]
    assert "bounded by" not in certificate["reason"]
