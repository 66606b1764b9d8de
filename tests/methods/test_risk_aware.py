"""The method that trains under the certified risks: its margins, its dual steps, when it ends, what it may see."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from froc.bounds.betting import Betting
from froc.data.splits import Sealed, SearchView
from froc.data.task import FORGETTING, UTILITY
from froc.loss_table import SCALE
from froc.methods.risk_aware import CLOSE, LEVEL, TELLINGS, Certifying, RiskAware, shortfall
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import FEEDBACK_QUERIES, TrialRunner

BUDGET = {FORGETTING: 0.1, UTILITY: 0.1}


def _losses(ones: int, n: int = 200) -> NDArray[np.int16]:
    """n losses in thousandths, `ones` of them 1, evenly spread."""
    losses = np.zeros(n, dtype=np.int16)
    if ones:
        losses[np.linspace(0, n - 1, ones).astype(int)] = SCALE
    return losses


def test_shortfall_is_the_betting_tests_margin() -> None:
    """0 where p is the level, 1 where it is 1, never below -1; larger losses leave more to be done."""
    for ones in (0, 4, 10, 30):
        p = float(Betting(level=LEVEL).p_value(_losses(ones)[None], 0.1)[0])
        assert shortfall(_losses(ones), 0.1) == pytest.approx(max(-1.0, 1 - math.log(p, LEVEL)))
    assert shortfall(_losses(0), 0.1) == -1.0
    assert shortfall(_losses(60), 0.1) == 1.0
    assert shortfall(_losses(0, n=3), 0.1) > 0  # three queries say little
    values = [shortfall(_losses(ones), 0.1) for ones in range(0, 40, 4)]
    assert values == sorted(values)


def test_lambda_goes_to_what_falls_short_and_stays_on_the_simplex() -> None:
    combiner, state = Certifying(rate=0.5, headroom=1.0, start=0.5), dict[str, Any]()
    before = combiner.weights(state)
    assert (before["forget"], before["retain"]) == pytest.approx((1.0, 1.0))
    assert not combiner.on_search_losses({FORGETTING: _losses(500, 1000), UTILITY: _losses(0, 1000)}, BUDGET, state)
    after = combiner.weights(state)
    # exp(rate * shortfall): 1 on the forget side, -1 on the retain side, with a thousand queries for each
    assert after["forget"] / after["retain"] == pytest.approx(math.exp(0.5 * 2))
    assert after["forget"] + after["retain"] == pytest.approx(2.0)
    combiner.on_search_losses({FORGETTING: _losses(0, 1000), UTILITY: _losses(500, 1000)}, BUDGET, state)
    assert combiner.weights(state)["forget"] == pytest.approx(1.0)


def test_utility_is_aimed_as_low_as_can_be_shown_and_forgetting_at_its_headroom() -> None:
    """Zero losses always satisfy the aim, however few they are, unless the budget itself is out of their reach."""
    combiner = Certifying(headroom=0.5)
    for count in (40, 60, 128, 1000):
        aim = combiner._aim(UTILITY, 0.1, count)
        assert CLOSE * 0.1 <= aim < 0.1
        assert shortfall(_losses(0, count), aim) < 0
        assert combiner._aim(FORGETTING, 0.1, count) == 0.05
    assert combiner._aim(UTILITY, 0.1, 10) == 0.1
    assert combiner._aim(UTILITY, 0.1, 1000) == pytest.approx(0.02)


def test_training_is_over_once_no_risk_falls_short() -> None:
    combiner = Certifying(headroom=0.5)
    ended = [
        combiner.on_search_losses({FORGETTING: _losses(forgotten), UTILITY: _losses(lost)}, BUDGET, {})
        for forgotten, lost in ((0, 0), (2, 0), (20, 0), (0, 4), (0, 20))
    ]
    # what is left of utility is held to a fifth of its budget, 4 of 200: four that are lost cannot show that
    assert ended == [True, True, False, False, False]


def test_a_run_ends_early_where_certification_is_likely_and_is_trained_again_alike(bench: TrialRunner) -> None:
    params = {"lr": 3e-3, "epochs": 8, "headroom": 0.9}
    eased = TrialRunner(bench.base, bench.view, bench.measures, batch=16, seed=1, limits=dict.fromkeys(BUDGET, 0.3))
    outcome = eased.run([TrialSpec("risk_aware", params, 3)], [lambda *_: False])[0]
    whole = math.ceil(8 * len(bench.view.forget) / 16)
    assert outcome.status == "complete"
    assert outcome.steps < whole
    assert max(outcome.ended[0].means.values()) < 0.3
    kept = eased.base.trainable.snapshot()
    eased.retrain(TrialSpec("risk_aware", params, 3))
    assert all((kept[name] == value).all() for name, value in eased.base.trainable.snapshot().items())


def test_it_is_told_search_losses_and_nothing_else(
    bench: TrialRunner, parts: tuple[SearchView, Sealed], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[dict[str, int]] = []

    def note(
        self: Certifying, losses: Mapping[str, NDArray[np.int16]], budgets: Mapping[str, float], state: Any
    ) -> bool:
        counts.append({risk: len(losses_of_risk) for risk, losses_of_risk in losses.items()})
        return False

    monkeypatch.setattr(Certifying, "on_search_losses", note)
    bench.retrain(TrialSpec("risk_aware", {"lr": 1e-3, "epochs": 4}, 0))
    view = parts[0]
    assert (
        counts == [{risk: min(FEEDBACK_QUERIES, len(view.queries[risk])) for risk in (FORGETTING, UTILITY)}] * TELLINGS
    )
    # what it is handed has no field for calibration queries
    assert not any("calibration" in name or "sealed" in name for name in vars(view))
    assert RiskAware().n_feedback_evals == TELLINGS
