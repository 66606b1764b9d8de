"""Plans: numbers by hand, certificates that are as likely as planned, and no calibration loss that could change one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta, betabinom, binom, hypergeom

from froc.bounds import Bound
from froc.errors import InputError
from froc.loss_table import SCALE
from froc.planning import design_search, loss_distributions
from froc.planning.pass_probability import FirstCandidate, joint_probability, simulate_calibration
from froc.planning.plan import Plan, plan
from froc.plugins import find, names
from froc.risk import requirements
from froc.risk.certificate import decide
from froc.risk.claim import Candidate, Claim, evidence_from_matrix
from froc.risk.p_values import p_values


def first(bound: str = "binomial", candidates: int = 1, **fields: Any) -> FirstCandidate:
    claim = Claim({"forgetting": 0.1}, {"forgetting": bound}, {"forgetting": "query"}, **fields)
    return FirstCandidate(claim, "forgetting", candidates)


def searches(risks: tuple[float, ...], queries: int = 80, seed: int = 0) -> pl.DataFrame:
    """0-1 losses of forgetting: search rows, and calibration rows that a plan must not see."""
    rng = np.random.default_rng(seed)
    parts = [
        pl.DataFrame(
            {"query": [f"{split}{q}" for q in range(queries)], "loss": (rng.random(queries) < risk) * 1.0}
        ).with_columns(config=pl.lit(f"c{i}"), risk=pl.lit("forgetting"), split=pl.lit(split))
        for i, risk in enumerate(risks)
        for split in ("search", "calibration")
    ]
    return pl.concat(parts)


# --- laws


@pytest.mark.parametrize("risk", [0.0, 0.03, 0.5, 1.0])
def test_laws_have_the_risk_that_was_said(risk: float) -> None:
    made = [
        loss_distributions.zero_one(risk),
        loss_distributions.clustered(risk, 20, 0.3),
        loss_distributions.clustered(risk, 20, 0.0),
        loss_distributions.clustered(risk, 20, 1.0),
    ]
    for law in made:
        assert law.sum() == pytest.approx(1.0)
        assert loss_distributions.mean(law) == pytest.approx(risk, abs=1e-9)
        assert loss_distributions.mean(
            np.bincount(loss_distributions.listed_losses(law, 100_000), minlength=SCALE + 1) / 100_000
        ) == pytest.approx(risk, abs=1e-4)


def test_a_spread_is_a_standard_deviation_and_losses_are_rounded_up() -> None:
    law = loss_distributions.beta_losses(0.1, 0.07)
    values = np.arange(SCALE + 1) / SCALE
    assert 0.1 < loss_distributions.mean(law) < 0.101
    assert np.sqrt(law @ (values - loss_distributions.mean(law)) ** 2) == pytest.approx(0.07, abs=1e-4)
    for deviation in (0.0, 0.31, -1.0):
        with pytest.raises(InputError, match=r"between 0 and 0\.3"):
            loss_distributions.beta_losses(0.1, deviation)


def test_losses_in_a_cluster_correlate_as_was_said() -> None:
    """Var of a mean of k 0-1 losses: r (1 - r) (1 + (k - 1) correlation) / k."""
    law, values = loss_distributions.clustered(0.2, 20, 0.3), np.arange(SCALE + 1) / SCALE
    assert law @ (values - 0.2) ** 2 == pytest.approx(0.16 * (1 + 19 * 0.3) / 20)


def test_laws_are_the_textbooks() -> None:
    """Against SciPy's distributions."""
    values, lost = np.arange(1, SCALE + 1) / SCALE, np.arange(21)
    many = 0.1 * 0.9 / 0.07**2 - 1
    np.testing.assert_allclose(
        loss_distributions.beta_losses(0.1, 0.07).cumsum()[1:], beta.cdf(values, 0.1 * many, 0.9 * many), atol=1e-12
    )
    np.testing.assert_allclose(loss_distributions.clustered(0.1, 20, 0.0)[::50], binom.pmf(lost, 20, 0.1), atol=1e-12)
    a, b = 0.1 * 0.7 / 0.3, 0.9 * 0.7 / 0.3
    np.testing.assert_allclose(
        loss_distributions.clustered(0.1, 20, 0.3)[::50], betabinom.pmf(lost, 20, a, b), atol=1e-12
    )


# --- exact numbers


def test_how_many_may_be_lost_is_the_binomial_tail() -> None:
    candidate = first()
    for units in (10, 22, 37, 38, 150):
        passing = [k for k in range(units + 1) if binom.cdf(k, units, 0.1) <= 0.1]
        assert candidate.allowed(units) == max(passing, default=-1)
    for lost in (0, 1, 7):
        need = candidate.useful(lost)
        assert need is not None
        assert binom.cdf(lost, need, 0.1) <= 0.1 < binom.cdf(lost, need - 1, 0.1)


@pytest.mark.parametrize(
    "bound", [name for name in names(Bound) if find(Bound, name).order_free and not find(Bound, name).finite]
)
@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.45])
def test_more_losses_of_one_never_make_a_p_value_smaller(bound: str, alpha: float) -> None:
    """What lets a plan look for the most losses by bisection."""
    losses = np.tril(np.full((61, 60), SCALE, dtype=np.int16), -1)
    claim = Claim({"forgetting": alpha}, {"forgetting": bound}, {"forgetting": "query"})
    p = p_values(claim, "forgetting", {"forgetting": evidence_from_matrix(losses)}, 3)
    assert p == sorted(p)


@pytest.mark.parametrize(("risk", "candidates"), [(0.03, 10), (0.05, 1), (0.06, 4)])
def test_fewer_units_than_planned_have_less_than_the_wanted_power(risk: float, candidates: int) -> None:
    candidate = first(candidates=candidates)
    need = candidate.units(loss_distributions.zero_one(risk), 0.9, 1)
    assert need is not None
    most = [np.flatnonzero(binom.cdf(np.arange(n + 1), n, 0.1) <= candidate.share) for n in range(1, need + 1)]
    chances = [binom.cdf(k[-1], n, risk) if len(k) else 0.0 for n, k in enumerate(most, start=1)]
    assert chances[-1] >= 0.9
    assert max(chances[:-1]) < 0.9


def test_part_of_a_list_is_exact_too() -> None:
    candidate = first("hypergeometric", population={"forgetting": "sample"}, listed={"forgetting": 400})
    result = candidate.chance(loss_distributions.zero_one(0.05), 150)
    assert result.error == 0
    assert result.value == pytest.approx(hypergeom.cdf(candidate.allowed(150), 400, 20, 150))


def test_no_number_of_units_certifies_a_risk_at_the_budget() -> None:
    for bound in ("binomial", "betting"):
        assert first(bound).units(loss_distributions.zero_one(0.1), 0.5, 22) is None
        assert first(bound, radius=0.05).units(loss_distributions.zero_one(0.07), 0.5, 22) is None


def test_zero_loss_is_the_check_before_training() -> None:
    made = plan({"forgetting": 0.05, "utility": 0.1}, clusters={"utility": 40}, candidates=7)
    assert made.zero == requirements.required_units(made.claim, 7)
    assert made.claim.unit == {"forgetting": "query", "utility": "group"}


def test_what_the_next_useful_number_buys() -> None:
    made = plan({"forgetting": 0.1}, expected_risk=0.03, units=300, binary=True)
    notes = {rung.note: rung for rung in made.ladder if rung.note}
    now, after = notes["planned"], notes["next useful"]
    assert now.lost is not None
    assert after.lost == now.lost + 1
    assert FirstCandidate(made.claim, "forgetting", 10).allowed(after.units - 1) == now.lost
    assert f"one more is borne from {after.units} units on" in str(made)


def test_risks_that_are_alike_share_their_rows_and_others_do_not() -> None:
    alike = plan(0.1, expected_risk=0.03, binary=True)
    assert {rung.risks for rung in alike.ladder} == {("forgetting", "utility")}
    apart = plan(0.1, expected_risk={"forgetting": 0.03, "utility": 0.04}, binary=True, units=200)
    assert {rung.risks for rung in apart.ladder} == {("forgetting",), ("utility",)}
    first, second = (
        FirstCandidate(apart.claim, risk, 10).chance(loss_distributions.zero_one(level), 200)
        for risk, level in (("forgetting", 0.03), ("utility", 0.04))
    )
    assert apart.joint_probability == joint_probability([first, second])
    assert apart.joint_probability[0].value == pytest.approx(first.value * second.value)
    assert apart.joint_probability[1] == pytest.approx(first.value + second.value - 1)


# --- plans against certificates


def _certified(made: Plan, losses: Any, repeats: int) -> float:
    candidates = [Candidate(f"c{i}", "", {}, 1 / (i + 1)) for i in range(made.candidates)]
    return float(np.mean(["c0" in decide(losses(), candidates, made.claim)["certified"] for _ in range(repeats)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "continuous", "clusters"])
def test_certificates_are_as_likely_as_planned(kind: str) -> None:
    """The small form of benchmarks/planning.py."""
    rng, repeats = np.random.default_rng(4), 200
    text: dict[str, Any] = {
        "binary": {"expected_risk": 0.04, "units": 150, "binary": True},
        "continuous": {"expected_risk": 0.06, "spread": 0.1, "units": 140},
        "clusters": {"expected_risk": 0.02, "units": 400, "clusters": 40, "correlation": 0.2},
    }[kind]
    made = plan({"forgetting": 0.1}, candidates=3, **text)

    def losses() -> dict[str, np.ndarray[Any, Any]]:
        risks = np.array([[text["expected_risk"]], [0.6], [0.6]])
        if kind == "binary":
            return {"forgetting": (rng.random((3, 150)) < risks).astype(np.int16) * SCALE}
        if kind == "continuous":
            many = 0.06 * 0.94 / 0.01 - 1
            return {
                "forgetting": np.ceil(rng.beta(risks * many, (1 - risks) * many, (3, 140)) * SCALE).astype(np.int16)
            }
        rates = rng.beta(risks * 4, (1 - risks) * 4, (3, 40))
        return {"forgetting": (rng.binomial(10, rates) * (SCALE // 10)).astype(np.int16)}

    assert made.joint_probability is not None
    said_power, rate = made.joint_probability[0], _certified(made, losses, repeats)
    assert 0.1 < said_power.value < 0.97
    error = np.hypot(said_power.error, np.sqrt(rate * (1 - rate) / repeats))
    assert abs(rate - said_power.value) <= 3 * error


# --- search losses alone


def _spoiled(table: pl.DataFrame, loss: float) -> pl.DataFrame:
    return table.with_columns(loss=pl.when(pl.col("split") == "calibration").then(loss).otherwise(pl.col("loss")))


@pytest.mark.parametrize("design", ["given", "auto"])
def test_calibration_losses_change_nothing(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design_search, "REPEATS", 20)
    table = searches((0.03, 0.06, 0.2))
    options: dict[str, Any] = {"units": 200, "design": design, "binary": True}
    wanted = plan({"forgetting": 0.1}, losses=table, **options).document()
    others = [_spoiled(table, 0.0), _spoiled(table, 1.0), table.filter(pl.col("split") == "search")]
    # not even whether they are losses at all
    others.append(_spoiled(table, float("nan")))
    for second in others:
        assert plan({"forgetting": 0.1}, losses=second, **options).document() == wanted
    # the search losses do
    assert plan({"forgetting": 0.1}, losses=searches((0.03, 0.06, 0.2), seed=1), **options).document() != wanted


def test_a_table_without_search_rows_is_refused() -> None:
    table = searches((0.03,))
    for item in (table.filter(pl.col("split") == "calibration"), table.drop("split").unique(["config", "query"])):
        with pytest.raises(InputError, match="no rows with split 'search'"):
            plan(0.1, losses=item)


def test_a_design_is_chosen_among_all_that_were_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design_search, "REPEATS", 40)
    made = plan({"forgetting": 0.1}, losses=searches((0.04, 0.05, 0.06, 0.3)), units=150, design="auto", binary=True)
    taken, top = made.designs[0], max(design.any.value for design in made.designs)
    assert len(made.designs) == len(design_search.SEARCH_SHARES) * len(design_search.BINARY) * 6
    assert taken.any.value >= top - max(design.any.error for design in made.designs)
    # 0-1 losses are what the exact test is for
    rate = {bound: max(o.any.value for o in made.designs if o.bound == bound) for bound in ("binomial", "mixture")}
    assert rate["binomial"] > rate["mixture"]
    assert made.command is not None
    assert f"--procedure {taken.procedure} --bound {taken.bound}" in made.command
    again = plan({"forgetting": 0.1}, losses=searches((0.04, 0.05, 0.06, 0.3)), units=150, design="auto", binary=True)
    assert again.document() == made.document()


def test_what_breaks_a_budget_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong certificates are no merit of a design; without any right one, the defaults are kept."""
    monkeypatch.setattr(design_search, "REPEATS", 20)
    made = plan({"forgetting": 0.1}, losses=searches((0.4, 0.5)), units=150, design="auto")
    assert all(design.any.value == 0 for design in made.designs)
    assert (made.designs[0].share, made.designs[0].procedure) == (0.2, "weighted-holm")


def test_few_units_without_a_loss_are_no_certainty() -> None:
    pool, places = simulate_calibration(np.random.default_rng(0), 10, 50, 200)
    assert pool.shape == (200, 11)
    assert places.shape == (200, 50)
    assert 0.5 < (pool == 10).any(axis=1).mean() < 0.8


# --- what is refused, what is printed

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"budget": {"combined": 0.1}}, "no combined risk"),
    ({"confidence": 1.0}, "confidence"),
    ({"expected_risk": 1.5}, "outside"),
    ({"expected_risk": {"utility": 0.1}, "budget": {"forgetting": 0.1}}, "'utility', which has no budget"),
    ({"expected_risk": {"forgetting": 0.05}}, "expected of utility"),
    ({"units": 0}, "at least 1"),
    ({"units": 5, "clusters": 10}, "fewer queries than clusters"),
    ({"correlation": 0.3}, "--clusters"),
    ({"clusters": 20, "units": 200, "correlation": 1.3, "expected_risk": 0.05}, "outside"),
    ({"clusters": 20, "units": 200, "correlation": 0.3, "spread": 0.1}, "give one of them"),
    ({"spread": 0.9, "expected_risk": 0.05}, "between 0 and"),
    ({"population": "census"}, "a census measures every row"),
    ({"population": "sample"}, "--listed"),
    ({"population": "sample", "listed": 100, "units": 150}, "more units than the 100"),
    ({"candidates": -1}, "candidates"),
    ({"power": 1.0}, "power"),
    ({"search_share": 1.0}, "search share"),
    ({"design": "auto"}, "--from"),
    ({"design": "best"}, "no design"),
    ({"bound": "bently"}, "no bound is called 'bently'"),
    ({"budget": {"forgetting": 1e-7}}, "more than 1000000"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(**({"budget": 0.1} | options))


def test_an_automatic_design_needs_the_number_of_queries() -> None:
    with pytest.raises(InputError, match="--units 300"):
        plan(0.1, losses=searches((0.1,)), design="auto")
    for text in ({"procedure": "holm"}, {"bound": "betting"}, {"search_share": 0.3}, {"expected_risk": 0.03}):
        with pytest.raises(InputError, match="leave"):
            plan(0.1, losses=searches((0.1,)), units=100, design="auto", **text)


def test_it_prints_draws_and_is_json(tmp_path: Path) -> None:
    made = plan(0.1, expected_risk=0.03, units=100, binary=True, search_share=0.2)
    assert "power at 0.03" in str(made)
    assert "<table>" in made._repr_html_()
    assert json.loads(json.dumps(made.document()))["zero"] == made.zero
    assert len(made.plot().axes) == 1
    made.save(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    designs = replace(
        made, ladder=(), designs=(design_search.Design(0.2, "holm", "betting", made.ladder[0].chances[0], 1.0),)
    )
    designs.save(tmp_path / "designs.png")
    assert (tmp_path / "designs.png").stat().st_size > 5000
