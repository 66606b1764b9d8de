"""FROC's published score: values worked out by hand, what it does, and why nothing may be certified from it."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from froc.errors import InputError
from froc.risk.froc_score import (
    MIN_LOSS,
    Averages,
    Weighing,
    against_base,
    scores,
    softplus,
)

ROOT = Path(__file__).resolve().parents[2]
E = math.e
SOME = Averages(
    loss_u=np.array([1.0, E, 1.0]), acc_u=np.array([0.5, 0.2, 0.6]),
    loss_r=np.array([1.0, E, 2.0]), acc_r=np.array([0.9, 0.8, 0.9]),
)  # fmt: skip
BASE = Averages(*np.array([[0.05], [1.0], [1.0], [0.9]]))
"""The model before unlearning: knows everything, and is as useful as the best."""


def _with(first: Averages, second: Averages) -> Averages:
    return Averages(*(np.concatenate([vars(first)[name], vars(second)[name]]) for name in vars(first)))


def test_values_by_hand() -> None:
    # max Acc_U .6: s = 0+.6-.5, 1+.6-.2, 0; min Loss_R 1, max Acc_R .9: r = 0, 1+.1, log 2
    result = scores(SOME)
    assert result.s == pytest.approx([0.1, 1.4, 0.0], abs=1e-15)
    assert result.r == pytest.approx([0.0, 1.1, math.log(2)], abs=1e-15)
    # softplus(log 2) = log 3; softplus(0) = log 2
    assert result.margin_u == pytest.approx([math.log(2), math.log(1 + math.exp(1.1)), math.log(3)])
    assert result.margin_f == pytest.approx([math.log(1 + math.exp(-s)) for s in (0.1, 1.4, 0.0)])
    assert result.e_r == pytest.approx(0.5 * result.margin_f + 0.5 * result.margin_u)
    # alpha_unlearn = s of the second: its forgetting margin is log 2
    second = scores(SOME, Weighing(1.4, w_f=2.0, w_u=0.0))
    assert second.e_r[1] == pytest.approx(2 * math.log(2))


def test_larger_s_is_stronger_forgetting() -> None:
    """A higher loss and a lower accuracy on forgotten answers both raise s, and lower the score."""
    forgot = replace(SOME, loss_u=SOME.loss_u * 3)
    unsure = replace(SOME, acc_u=SOME.acc_u - np.array([0.1, 0.1, 0.0]))  # the largest accuracy stays
    for second, which in ((forgot, [0, 1, 2]), (unsure, [0, 1])):
        assert (scores(second).s > scores(SOME).s)[which].all()
        assert (scores(second).e_r < scores(SOME).e_r)[which].all()
        assert (scores(second).r == scores(SOME).r).all()


def test_no_configuration_can_score_below_half_of_log_2() -> None:
    """Perfect forgetting at the best utility: both margins at their smallest, e_R = w_u log 2 = 0.3466 even so."""
    best = Averages(np.array([1e300]), np.zeros(1), np.zeros(1), np.ones(1))
    floor = 0.5 * math.log(2)
    assert scores(best).e_r[0] == pytest.approx(floor)
    assert round(floor, 4) == 0.3466
    rng = np.random.default_rng(0)
    many = Averages(rng.gamma(2, 2, 500), rng.random(500), rng.gamma(1, 1, 500), rng.random(500))
    assert (scores(many).e_r >= floor).all()
    assert scores(many).e_r.max() > 1.0  # and it is not bounded by 1 either


def test_one_more_configuration_changes_all_others_unless_the_reference_is_fixed() -> None:
    """RISK.md 2, row 2: with the un-unlearned model in the sweep, the same three models score better."""
    alone, among = scores(SOME), scores(_with(SOME, BASE))
    assert (among.e_r[:3] < alone.e_r).all()
    # max Acc_U rises from .6 to 1: every s by .4
    assert among.s[:3] == pytest.approx(alone.s + 0.4)
    fixed, fixed_among = scores(SOME, reference=BASE), scores(_with(SOME, BASE), reference=BASE)
    assert fixed_among.e_r[:3].tolist() == fixed.e_r.tolist()


def test_scores_of_single_trials_are_those_of_all_together() -> None:
    """Bit by bit: Optuna is told one trial at a time, the picture is drawn from all."""
    lines = [
        {
            "forgetting": {"loss": u, "accuracy": a, "base_loss": 0.05, "base_accuracy": 1.0},
            "utility": {"loss": r, "accuracy": b, "base_loss": 1.0, "base_accuracy": 0.9},
        }
        for u, a, r, b in zip(SOME.loss_u, SOME.acc_u, SOME.loss_r, SOME.acc_r, strict=True)
    ]
    assert [against_base([line]).e_r[0] for line in lines] == against_base(lines).e_r.tolist()
    assert against_base(lines).e_r == pytest.approx(scores(SOME, reference=BASE).e_r, abs=1e-15)
    with pytest.raises(InputError, match="lacks the averages"):
        against_base([{"forgetting": lines[0]["forgetting"]}])


def test_extremes_stay_numbers() -> None:
    assert softplus([-1e9, 0.0, 1e9]).tolist() == [0.0, math.log(2), 1e9]
    nothing = Averages(np.zeros(1), np.ones(1), np.zeros(1), np.ones(1))
    result = scores(nothing)
    assert result.s[0] == math.log(MIN_LOSS)
    assert result.r[0] == 0.0
    assert np.isfinite(result.e_r).all()


@pytest.mark.parametrize("name", ["loss_u", "acc_u", "loss_r", "acc_r"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_what_is_no_average_is_refused(name: str, bad: float) -> None:
    with pytest.raises(InputError, match=name):
        replace(SOME, **{name: np.array([0.5, bad, 0.5])})


@pytest.mark.parametrize(("name", "most"), [("acc_u", "1"), ("acc_r", "1"), ("loss_u", "inf"), ("loss_r", "inf")])
def test_an_accuracy_is_at_most_1_and_a_loss_any_number(name: str, most: str) -> None:
    replace(SOME, **{name: np.array([0.0, 1.0, 0.5])})
    if most == "inf":
        replace(SOME, **{name: np.array([0.0, 1e6, 0.5])})
        return
    with pytest.raises(InputError, match=f"{name} holds an average that is no number from 0 to {most};"):
        replace(SOME, **{name: np.array([0.0, 1.000001, 0.5])})


def test_other_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="one number per configuration"):
        replace(SOME, acc_u=np.array([0.5]))
    with pytest.raises(InputError, match="no configuration"):
        scores(SOME, reference=Averages(*np.zeros((4, 0))))
    for bad in ({"w_f": -1.0}, {"alpha_unlearn": math.nan}, {"w_f": 0.0, "w_u": 0.0}):
        with pytest.raises(InputError):
            Weighing(**bad)


def test_certificates_do_not_know_the_score() -> None:
    """Only the search's steering, its plan and the pictures read it: no file that has a part in a certificate does."""
    users = set()
    for room in ("froc", "search", "audit", "cli"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                source = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
                if any("froc_score" in f"{source}.{name}".split(".") for name in names):
                    users.add(path.relative_to(ROOT).as_posix())
    assert users == {
        "froc/reporting/landscape.py",
        "froc/reporting/froc_score.py",
        "search/settings.py",
        "search/optuna/study.py",
    }
