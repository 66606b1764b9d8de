"""How many units it takes to certify, and what the printed bound is rounded to."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc import procedures
from froc.bounds import Bound
from froc.errors import InputError
from froc.loss_table import matrix
from froc.plugins import find, make
from froc.risk import requirements
from froc.risk.certificate import Claim, certify, level
from froc.risk.claim import evidence_from_matrix
from froc.risk.requirements import _smallest_budget, required_units, shortage, smallest_integer
from froc.risk.rounding import down, up, up_p
from tests.risk.test_certificate import ENDLESS, GOOD, RISKS, claim, listed, p_values, table


@pytest.mark.parametrize("bound", ENDLESS)
def test_what_is_printed_is_rounded_against_the_claim(bound: str) -> None:
    losses, tested_claim = table(GOOD), claim(bound)
    certificate = certify(losses, listed(3), tested_claim)
    for risk in RISKS:
        configs = [candidate.config for candidate in listed(3)]
        values = matrix(losses, risk=risk, split="calibration", configs=configs, unit="query").values
        aim = {"level": procedures.first_levels("weighted-holm", np.ones(3), 0.1)[0]}
        exact = make(Bound, bound, aim if "level" in find(Bound, bound).__dataclass_fields__ else None)
        for row, p in zip(certificate["candidates"], exact.p_value(values, 0.1), strict=True):
            assert p < row["p_values"][risk] <= min(1, p * (1 + 1.1e-5)) or row["p_values"][risk] == 1 == p
        for kind, delta in (("pointwise", 0.1), ("simultaneous", 0.1 / 6)):
            for row, u in zip(certificate["candidates"], exact.upper(values, delta), strict=True):
                assert u < row["cur"][risk][kind] <= u + 1.1e-6


@given(st.floats(0, 1))
def test_rounding(value: float) -> None:
    assert value <= up(value) <= min(1.0, value + 1.1e-6)
    assert value <= up_p(value) <= min(1.0, max(1e-300, value * (1 + 1.1e-5)))
    assert value - 1.1e-6 <= down(value) <= value
    assert up(up_p(value)) >= value


def test_rounding_by_hand() -> None:
    assert up(0.1234561) == 0.123457
    assert up(0.0864, 3) == 0.087
    assert up_p(0.02193993208) == 0.0219400
    assert up_p(1.234561e-12) == 1.23457e-12
    assert up_p(0.0) == 1e-300
    assert up_p(1.0) == up(1.0) == 1.0
    assert down(0.226546) == 0.226545
    assert down(0.0) == up(0.0) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("procedure", procedures.names())
@pytest.mark.parametrize("bound", ENDLESS)
@pytest.mark.parametrize("count", [1, 10])
def test_required_units_is_the_smallest_number_that_certifies(bound: str, procedure: str, count: int) -> None:
    tested_claim = claim(bound, budget={"forgetting": 0.08, "utility": 0.3}, procedure=procedure)
    need = required_units(tested_claim, count)
    for risk, units in need.items():
        for short, passes in ((0, True), (1, False)):
            n = need | {risk: units - short}
            # nobody but the first is any good: it must pass on its own share
            sums = {name: (0,) + (n[name],) * (count - 1) for name in RISKS}
            certificate = certify(table(sums, n), listed(count), tested_claim)
            assert ("c0000" in certificate["certified"]) == passes
        assert all(
            _first_p(tested_claim, risk, n, count) <= _share(tested_claim, count) for n in range(units, units + 60)
        )
        assert all(_first_p(tested_claim, risk, n, count) > _share(tested_claim, count) for n in range(1, units))


def _first_p(tested_claim: Claim, risk: str, n: int, count: int) -> float:
    return p_values(tested_claim, risk, np.zeros((1, n), dtype=np.int64), count)[0]


def _share(tested_claim: Claim, count: int) -> float:
    weights = 1.0 / np.arange(1, count + 1)
    return float(procedures.first_levels(tested_claim.procedure, weights, level(tested_claim))[0])


def test_required_units_by_formula() -> None:
    for count, units in ((1, 22), (10, 44), (50, 59), (200, 73), (1000, 88)):
        assert required_units(claim(procedure="bonferroni"), count) == dict.fromkeys(RISKS, units)
    with pytest.raises(InputError, match="more than 1000000 calibration units"):
        required_units(claim(budget={"forgetting": 1e-7}), 1)
    assert required_units(claim(budget={"forgetting": 3e-6}), 1)["forgetting"] == 767_528


def test_what_no_test_could_certify_is_refused_without_a_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero losses have probability (1 - budget) ** units where each is 1 with probability `budget`; betting would take half a minute."""

    def never(*_: object, **__: object) -> list[float]:
        raise AssertionError

    monkeypatch.setattr(requirements, "p_values", never)
    with pytest.raises(InputError, match="more than 1000000 calibration units"):
        required_units(claim("star_betting", budget={"forgetting": 1e-7}), 1)


def test_of_risks_that_are_equally_hopeless_the_one_farthest_above_its_budget_is_named() -> None:
    """Both p-values are 1; 150 of 150 lost are farther above a tenth than 100 of 200."""
    certificate = certify(table({"forgetting": (100,), "utility": (150,)}), listed(1), claim())
    assert set(certificate["candidates"][0]["p_values"].values()) == {1.0}
    assert (certificate["closest"]["risk"], certificate["closest"]["also"]) == ("utility", ["forgetting"])


@pytest.mark.parametrize("threshold", [0.2, 0.30000049, 0.7])
def test_the_smallest_budget_that_passes_is_rounded_up(threshold: float) -> None:
    budget = _smallest_budget(lambda alpha: alpha >= threshold, 0.1)
    assert threshold <= budget <= threshold + 1.1e-6
    assert _smallest_budget(lambda _: False, 0.1) == 1.0


@pytest.mark.parametrize(("start", "first"), [(1, 7), (7, 7), (5, 8), (1, 1)])
def test_the_smallest_number_is_the_first_that_holds(start: int, first: int) -> None:
    assert smallest_integer(lambda number: number >= first, start) == first
    assert smallest_integer(lambda _: False, start, 20) is None


def test_a_shortage_is_of_fewer_units_than_are_needed() -> None:
    """At zero loss the binomial bound needs ln(0.1) / ln(0.9) = 22 units."""
    own = claim("binomial", ("forgetting",))
    for count, short in ((21, True), (22, False), (23, False)):
        evidence = {"forgetting": evidence_from_matrix(np.zeros((1, count), dtype=np.int16))}
        line = shortage(evidence, 1, own)
        assert (line is not None) == short
        if line is not None:
            assert line.startswith("21 query units of forgetting cannot certify this even at zero loss, 22 are needed")
        assert shortage(evidence, 1, replace(own, sequential=True)) is None
