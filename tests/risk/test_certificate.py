"""Certificates: what is claimed, how it is rounded, what is chosen, and what is said when nothing is."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from froc import procedures
from froc.bounds import Bound, Losses
from froc.errors import InputError
from froc.loss_table import SCALE, check, matrix
from froc.plugins import find, make, names
from froc.risk import requirements
from froc.risk.certificate import Candidate, Claim, certify, choose, level, refuse_unknown
from froc.risk.claim import evidence_from_matrix
from froc.risk.p_values import p_values as p_values_of
from froc.risk.requirements import required_units
from froc.risk.shift import robust_radius, shifted, shrunk

RISKS = ("forgetting", "utility")
N = {"forgetting": 200, "utility": 150}


def claim(bound: str = "binomial", risks: tuple[str, ...] = RISKS, **fields: Any) -> Claim:
    """Budget 0.1 for every risk, queries as units."""
    budget = fields.pop("budget", dict.fromkeys(risks, 0.1))
    return Claim(budget, dict.fromkeys(budget, bound), dict.fromkeys(budget, "query"), **fields)


def p_values(tested_claim: Claim, risk: str, losses: Losses, candidates: int) -> list[float]:
    """(m,) rounded p-values of a plain matrix."""
    return p_values_of(tested_claim, risk, {risk: evidence_from_matrix(losses)}, candidates)


def listed(count: int) -> list[Candidate]:
    """c0000, c0001, ... with weights 1 / rank."""
    return [Candidate(f"c{i:04d}", "npo", {"beta": 0.1}, 1 / (i + 1)) for i in range(count)]


def table(sums: Mapping[str, tuple[int, ...]], n: Mapping[str, int] = N) -> pl.DataFrame:
    """Config i has sums[risk][i] losses of 1, spread over the queries; the rest are 0."""
    parts = []
    for risk, counts in sums.items():
        for i, count in enumerate(counts):
            loss = np.zeros(n[risk])
            loss[np.linspace(0, n[risk] - 1, count).astype(int)] = 1.0
            columns = {"query": [f"{risk}-{q}" for q in range(n[risk])], "loss": loss}
            parts.append(pl.DataFrame(columns).with_columns(config=pl.lit(f"c{i:04d}"), risk=pl.lit(risk)))
    return check(pl.concat(parts))


ENDLESS = [name for name in names(Bound) if not find(Bound, name).finite]
GOOD = {"forgetting": (4, 30, 8), "utility": (2, 3, 5)}


def test_document_by_hand() -> None:
    certificate = certify(table(GOOD), listed(3), claim())
    assert list(certificate) == [
        "format", "budget", "confidence", "level", "joint", "opening", "procedure", "promise", "bound", "population",
        "listed", "weights", "radius", "sequential", "unit", "n", "candidates", "certified", "screened", "chosen",
        "closest", "warnings", "reason",
    ]  # fmt: skip
    assert certificate["n"] == N
    assert certificate["level"] == 0.1
    assert certificate["certified"] == ["c0000", "c0002"]
    assert certificate["chosen"] == "c0000"
    assert certificate["closest"] is None
    assert certificate["population"] == dict.fromkeys(RISKS, "queries")
    assert (certificate["promise"], certificate["screened"], certificate["sequential"]) == ("family-wise", None, None)
    assert certificate["reason"] == (
        "2 of 3 candidates certified (forgetting at most 0.1 and utility at most 0.1, confidence 0.9); "
        "chosen c0000 (npo) for the widest margin"
    )
    row = certificate["candidates"][2]
    assert row["config"] == "c0002"
    assert row["weight"] == 1 / 3
    assert row["empirical"] == {"forgetting": 0.04, "utility": 0.033333}
    wanted = {"forgetting": binom.cdf(8, 200, 0.1), "utility": binom.cdf(5, 150, 0.1)}
    for risk, p in wanted.items():
        assert row["p_values"][risk] == pytest.approx(p, rel=1e-5)
        cur = row["cur"][risk]
        k = {"forgetting": 8, "utility": 5}[risk]
        assert binom.cdf(k, N[risk], cur["pointwise"]) == pytest.approx(0.1, rel=1e-3)
        # three candidates, two risks: all six bounds hold together
        assert binom.cdf(k, N[risk], cur["simultaneous"]) == pytest.approx(0.1 / 6, rel=1e-3)
        assert shifted(cur["simultaneous"], row["robust_radius"][risk]) == pytest.approx(0.1, abs=1e-5)
    assert row["p_value"] == max(row["p_values"].values())
    assert certificate["candidates"][1]["robust_radius"]["forgetting"] is None
    assert json.loads(json.dumps(certificate, allow_nan=False)) == certificate


@pytest.mark.parametrize("bound", ENDLESS)
def test_rows_in_any_order_give_the_same_document(bound: str) -> None:
    losses, wanted = table(GOOD), None
    for seed in range(4):
        document = json.dumps(certify(losses.sample(fraction=1, shuffle=True, seed=seed), listed(3), claim(bound)))
        wanted = wanted or document
        assert document == wanted


def test_other_configurations_in_the_table_change_nothing() -> None:
    losses = table(GOOD)
    assert certify(losses.filter(pl.col("config") == "c0000"), listed(1), claim()) == certify(
        losses, listed(1), claim()
    )


def test_choice_is_the_widest_margin_in_the_worst_risk() -> None:
    def row(config: str, forgetting: float, utility: float, certified: bool = True) -> dict[str, Any]:
        cur = {"forgetting": {"simultaneous": forgetting}, "utility": {"simultaneous": utility}}
        return {"config": config, "certified": certified, "cur": cur}

    budget = {"forgetting": 0.1, "utility": 0.2}
    assert choose([row("a", 0.09, 0.1), row("b", 0.08, 0.15), row("c", 0.01, 0.01, False)], budget) == "b"
    assert choose([row("a", 0.02, 0.18), row("b", 0.09, 0.02)], budget) == "a"
    assert choose([row("a", 0.08, 0.1), row("b", 0.01, 0.16)], budget) == "a"
    assert choose([row("c", 0.01, 0.01, False)], budget) is None
    assert choose([], budget) is None


BAD = {"forgetting": (40, 16, 20), "utility": (2, 3, 5)}


@pytest.mark.slow
@pytest.mark.parametrize("procedure", procedures.names())
@pytest.mark.parametrize("bound", ENDLESS)
def test_the_hint_is_true_when_nothing_is_certified(bound: str, procedure: str) -> None:
    losses, tested_claim = table(BAD), claim(bound, procedure=procedure, budget={"forgetting": 0.1, "utility": 0.4})
    certificate = certify(losses, listed(3), tested_claim)
    assert certificate["certified"] == []
    assert certificate["chosen"] is None
    closest = certificate["closest"]
    assert closest["config"] == ("c0000" if procedure == "fixed-sequence" else "c0001")
    assert closest["risk"] == "forgetting"
    need = closest["needs"]
    # with the budget it names the same queries would have done; with a thousandth less, not
    for budget, passes in ((need["budget"], True), (need["budget"] - 0.001, False)):
        wider = replace(tested_claim, budget=tested_claim.budget | {"forgetting": budget})
        assert (closest["config"] in certify(losses, listed(3), wider)["certified"]) == passes
    assert need["budget"] - 0.001 < closest["bound"] <= need["budget"]
    if procedure == "fixed-sequence":
        assert need["units"] is None  # 40 of 200 are above the budget: no number of queries would do
        return
    # with as many units as it says, alike in distribution, it would have been certified; with 10 % fewer, not
    i = int(closest["config"][1:])
    loss_matrix = matrix(losses, risk="forgetting", split="calibration", configs=[f"c{i:04d}"], unit="query").values
    share = procedures.first_levels(procedure, np.array([1, 1 / 2, 1 / 3]), 0.1)[i]
    assert need["units"] > 200

    def p(units: int) -> float:
        alike = requirements.resized(loss_matrix, units, requirements.ORDERS if bound == "normal_test_betting" else 1)
        return float(np.median(p_values(tested_claim, "forgetting", alike, 3)))

    assert p(need["units"]) <= share
    assert p(int(need["units"] * 0.9)) > share


def test_reason_says_what_it_would_have_taken() -> None:
    certificate = certify(table(BAD), listed(3), claim())
    need, bound = certificate["closest"]["needs"], certificate["closest"]["bound"]
    assert certificate["reason"] == (
        "nothing certified for forgetting at most 0.1 and utility at most 0.1; closest is c0001 (npo) with "
        f"forgetting bounded by {math.ceil(bound * 1000) / 1000:g}: it would take about {need['units']} calibration "
        f"units of forgetting with losses like these or a forgetting budget of {need['budget']:g}"
    )
    pair = certify(table({"forgetting": (40,), "utility": (30,)}), listed(1), claim())
    assert pair["closest"]["also"] == ["utility"]
    assert pair["reason"].endswith("; its utility too falls short")


def test_too_few_units_are_said_to_be_too_few() -> None:
    """Ten clusters can certify nothing, and pooling their rows is no way out."""
    rows = [
        {"config": "c0000", "risk": "forgetting", "unit": f"author{i % 10}", "query": f"q{i}", "loss": 0.0}
        for i in range(200)
    ]
    changed = replace(claim("betting", ("forgetting",)), unit={"forgetting": "group"})
    certificate = certify(check(pl.DataFrame(rows)), listed(1), changed)
    assert certificate["chosen"] is None
    assert "10 group units of forgetting cannot certify this even at zero loss, " in certificate["reason"]
    needed = int(certificate["reason"].split("zero loss, ")[1].split()[0])
    assert required_units(changed, 1)["forgetting"] == needed > 20


def test_all_lost() -> None:
    certificate = certify(table({"forgetting": (200,), "utility": (150,)}), listed(1), claim("betting"))
    assert certificate["closest"]["needs"] == {"units": None, "budget": None}
    assert certificate["closest"]["bound"] == 1.0
    assert certificate["reason"].endswith(
        "bounded by 1: it would take another configuration, for no budget below 1 would do; its utility too falls short"
    )


def test_no_candidates() -> None:
    certificate = certify(table(GOOD), [], claim())
    assert certificate["candidates"] == certificate["certified"] == []
    assert certificate["chosen"] is certificate["closest"] is None
    assert certificate["reason"].startswith("nothing certified: no configuration came near")


def test_one_query_one_candidate() -> None:
    certificate = certify(table({"forgetting": (0,)}, {"forgetting": 1}), listed(1), claim(budget={"forgetting": 0.1}))
    assert certificate["candidates"][0]["p_value"] == pytest.approx(0.9, rel=1e-5)
    assert certificate["closest"]["needs"]["units"] == 22


def test_groups_are_the_units_where_asked() -> None:
    rows = [
        {"config": "c0000", "risk": "forgetting", "unit": f"author{i % 30}", "query": f"q{i}", "loss": 0.0}
        for i in range(600)
    ]
    losses = check(pl.DataFrame(rows))
    tested_claim = claim("hoeffding_bentkus", ("forgetting",))
    by_group = certify(losses, listed(1), replace(tested_claim, unit={"forgetting": "group"}))
    assert by_group["n"] == {"forgetting": 30}
    assert by_group["candidates"][0]["p_value"] == pytest.approx(0.9**30, rel=1e-5)
    assert certify(losses, listed(1), tested_claim)["n"] == {"forgetting": 600}


def test_a_group_that_the_search_has_seen_is_no_sampling_unit() -> None:
    rows = [
        {"config": "c0000", "risk": "forgetting", "unit": f"a{i % 40}", "query": f"q{i}", "loss": 0.0,
         "split": "search" if i < 50 else "calibration"}
        for i in range(400)
    ]  # fmt: skip
    losses, tested_claim = check(pl.DataFrame(rows)), claim("betting", ("forgetting",))
    assert certify(losses, listed(1), tested_claim)["n"] == {"forgetting": 350}
    with pytest.raises(InputError, match=r"unit 'a0' has rows in both splits \(40 such units\)"):
        certify(losses, listed(1), replace(tested_claim, unit={"forgetting": "group"}))


def test_a_table_sorted_by_topic_fools_no_bound() -> None:
    """In the order of the file the capital would win on the easy half before it sees the hard one."""
    loss = [0.0] * 200 + [0.5] * 200
    rows = pl.DataFrame({"query": [f"q{i:04d}" for i in range(400)], "loss": loss})
    losses = check(rows.with_columns(config=pl.lit("c0000"), risk=pl.lit("forgetting")))
    tested_claim = claim("betting", ("forgetting",))
    in_file_order = np.array([[int(1000 * x) for x in loss]])
    assert make(Bound, "betting").p_value(in_file_order, 0.1)[0] < 0.001
    assert certify(losses, listed(1), tested_claim)["candidates"][0]["p_value"] > 0.5


LEVELS: list[tuple[dict[str, Any], float, str]] = [
    ({}, 0.1, "first and only opening of these calibration queries"),
    ({"confidence": 0.95}, 0.05, "first and only opening of these calibration queries"),
    ({"joint": True}, 0.05, "first and only opening of these calibration queries"),
    ({"openings": 4, "opening": 2}, 0.025, "opening 2 of 4 planned: all together hold with confidence 0.9"),
    ({"opening": 3}, 0.1, "opening 3, 1 planned: jointly 0.7, not 0.9"),
    ({"openings": 2, "opening": 3, "joint": True}, 0.025, "opening 3, 2 planned: jointly 0.85, not 0.9"),
    ({"opening": 20}, 0.1, "opening 20, 1 planned: jointly 0, not 0.9"),
]


@pytest.mark.parametrize(("fields", "spent", "statement"), LEVELS)
def test_openings_and_joint_statements_spend_confidence(fields: dict[str, Any], spent: float, statement: str) -> None:
    tested_claim = claim(**fields)
    assert level(tested_claim) == pytest.approx(spent, abs=1e-15)
    certificate = certify(table(GOOD), listed(3), tested_claim)
    assert certificate["opening"]["statement"] == statement
    pointwise = certificate["candidates"][0]["cur"]["forgetting"]["pointwise"]
    assert binom.cdf(4, 200, pointwise) == pytest.approx(spent, rel=1e-3)
    if tested_claim.opening > tested_claim.openings:
        assert statement in certificate["reason"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"budget": {}}, "no risk has a budget"),
    ({"budget": {"forgetting": 0.0}}, "outside"),
    ({"budget": {"forgetting": 1.0}}, "outside"),
    ({"budget": {"forgetting": math.nan}}, "outside"),
    ({"bound": "bently"}, "no bound is called 'bently'"),
    ({"procedure": "hom"}, "no procedure is called 'hom'"),
    ({"confidence": 1.0}, "outside"),
    ({"confidence": math.nan}, "outside"),
    ({"confidence": 1 - 1e-14}, "no error level"),
    ({"openings": 0}, "counted from 1"),
    ({"opening": 0}, "counted from 1"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_impossible_claims_are_refused(fields: dict[str, Any], message: str) -> None:
    for call in (refuse_unknown, lambda tested_claim: certify(table(GOOD), listed(3), tested_claim)):
        with pytest.raises(InputError, match=message):
            call(claim(**fields))


def test_claims_that_do_not_fit_the_table_are_refused() -> None:
    losses = table(GOOD)
    with pytest.raises(InputError, match="no calibration rows for risk 'privacy'"):
        certify(losses, listed(3), claim(budget={"privacy": 0.1}))
    with pytest.raises(InputError, match="not all measured"):
        certify(losses, listed(4), claim())
    with pytest.raises(InputError, match="listed twice"):
        certify(losses, listed(2) * 2, claim())
    with pytest.raises(InputError, match="losses of 0 or 1"):
        certify(losses.with_columns(loss=pl.lit(500, pl.Int16)), listed(3), claim())
    with pytest.raises(InputError, match="no bound or unit"):
        certify(losses, listed(3), replace(claim(), unit={"forgetting": "query"}))
    with pytest.raises(InputError, match="no unit is called 'author'"):
        certify(losses, listed(3), replace(claim(), unit=dict.fromkeys(RISKS, "author")))


def test_monte_carlo_of_both_statements() -> None:
    """Six candidates just above budget on the same queries: any certified is an error; so is a CUR below the truth.

    The second also where the candidate is picked by its calibration losses. Tolerance: 4 standard errors of delta.
    """
    rng, repeats, n, m, risk = np.random.default_rng(11), 1000, 200, 6, 0.101
    tested_claim = claim(risks=("forgetting",))
    weights = 1.0 / np.arange(1, m + 1)
    wrong = missed = 0
    for _ in range(repeats):
        # queries differ in difficulty, so candidates depend on each other
        shared = rng.random(n) < 0.5
        own = rng.random((m, n))
        losses = np.where(np.where(shared, own[0], own) < risk, SCALE, 0).astype(np.int64)
        p = np.array(p_values(tested_claim, "forgetting", losses, m))
        wrong += int(procedures.certified("weighted-holm", p, weights, level(tested_claim)).any())
        bounds = make(Bound, "binomial").upper(losses, level(tested_claim) / m)
        missed += int(bounds.min() < risk)
    tolerance = 0.1 + 4 * math.sqrt(0.1 * 0.9 / repeats)
    assert wrong / repeats <= tolerance
    assert missed / repeats <= tolerance


@given(st.lists(st.integers(0, SCALE), min_size=1, max_size=50), st.integers(1, 500))
def test_alike_keeps_the_distribution(values: list[int], units: int) -> None:
    result = requirements.resized(np.array([values]), units)
    assert result.shape == (1, units)
    assert set(result[0]) <= set(values)
    ranked = np.sort(values)
    for cut in set(values):
        share = (ranked <= cut).mean()
        # every stretch of multiples of the golden ratio covers [0, 1] to within a few units
        assert abs((result[0] <= cut).sum() - share * units) <= 4 + math.log2(units)


@given(st.floats(0, 1), st.floats(0, 1))
def test_shift_and_its_inverses(risk: float, rho: float) -> None:
    assert shifted(risk, 0.0) == pytest.approx(risk, abs=1e-12)
    assert shifted(risk, rho) >= risk - 1e-12
    if shifted(risk, rho) < 1 - 1e-6:
        assert shrunk(shifted(risk, rho), rho) == pytest.approx(risk, abs=1e-7)
    radius = robust_radius(risk, 0.1)
    assert (radius is None) == (risk > 0.1)
    if radius is not None:
        assert shifted(risk, radius) == pytest.approx(0.1, abs=1e-9)
        assert radius <= math.sqrt(1 - math.sqrt(0.9)) + 1e-12
