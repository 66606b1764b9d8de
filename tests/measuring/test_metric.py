"""What was observed of queries, put together and taken apart; numbers that a model did not give; what metrics say of themselves."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from froc.data.task import Row
from froc.measuring.metric import Metric, Observation
from froc.metrics._options import wrong
from froc.metrics.entailment import Entailment
from froc.metrics.unlearning_depth import UnlearningDepth
from froc.plugins import find, names

NAN = math.nan


def seen(tokens: int, others: int, name: str, written: bool = True) -> Observation:
    """One query with so many answer tokens and other answers; all its numbers are tokens or others."""
    return Observation(
        np.ones((1, tokens), bool), np.full((1, tokens), -tokens, np.float32), np.array([tokens]),
        rows=(Row(name, "a", others=("o",) * others),), written=(name,) if written else None, expected=("a",),
        others=np.full((1, others, 2), others, np.float32), hidden=np.full((1, 2, 3), tokens, np.float32),
    )  # fmt: skip


def test_queries_of_other_lengths_are_put_together() -> None:
    """Answer tokens that are not there are False and 0, other answers that are not there NaN."""
    pair = seen(3, 1, "one").and_then(seen(2, 2, "two"))
    assert pair.hit.tolist() == [[True, True, True], [True, True, False]]
    assert pair.logp.tolist() == [[-3, -3, -3], [-2, -2, 0]]
    assert pair.length.tolist() == [3, 2]
    assert [row.question for row in pair.rows] == ["one", "two"]
    assert pair.written == ("one", "two")
    assert pair.others is not None
    np.testing.assert_array_equal(pair.others, [[[1, 1], [NAN, NAN]], [[2, 2], [2, 2]]])
    assert pair.hidden is not None
    assert pair.hidden.tolist() == [[[3] * 3] * 2, [[2] * 3] * 2]
    assert pair.mean_logp.tolist() == [-3.0, -2.0]


@pytest.mark.parametrize("first", [True, False])
def test_what_one_side_was_not_asked_for_is_known_of_neither(first: bool) -> None:
    pair = seen(2, 1, "one", written=first).and_then(seen(2, 1, "two", written=not first))
    assert pair.written is None
    assert pair.restated is None
    assert pair.expected == ("a", "a")


def test_queries_are_picked_in_the_order_asked_for() -> None:
    three = seen(3, 1, "one").and_then(seen(2, 2, "two")).and_then(seen(1, 1, "three"))
    picked = three.at([2, 0])
    assert picked.written == ("three", "one")
    assert picked.length.tolist() == [1, 3]
    assert picked.logp.tolist() == [[-1, 0, 0], [-3, -3, -3]]
    assert picked.restated is None


def test_an_option_without_a_number_makes_its_row_one() -> None:
    """A row with fewer options has -inf for those it lacks; one without options is none to be compared."""
    rows = tuple(Row("q", "a", others=("o",) * count) for count in (2, 1, 2, 0))
    means = np.array([[-1, -2], [-3, NAN], [-1, NAN], [NAN, NAN]], np.float32)
    options = Observation(
        np.ones((4, 1), bool), np.zeros((4, 1), np.float32), np.ones(4, np.int64), rows=rows,
        others=np.stack([means * 5, means], axis=2),
    )  # fmt: skip
    np.testing.assert_array_equal(wrong(options), [[-1, -2], [-3, -math.inf], [NAN, NAN], [NAN, NAN]])


def depths(own: list[list[float]], base: list[list[float]]) -> list[float]:
    """Scores of queries with these losses of log-probability per layer: of this model, and of the retrained one."""
    n = len(own)
    parts = [np.array(values, dtype=np.float64) for values in (own, base)]
    start, observed = (
        Observation(np.ones((n, 1), bool), np.zeros((n, 1), np.float32), np.ones(n, np.int64), depth=d)
        for d in parts[::-1]
    )
    scores: list[float] = UnlearningDepth("r").scores(replace(observed, start=start)).tolist()
    return scores


def test_depth_by_hand_and_without_a_layers_number() -> None:
    """Layers carry 1 and 3; 1 and 1 are gone: half stays. A layer at tau carries nothing; more than all cannot be gone.

    What no layer carries cannot be measured, and counts against the claim like all that cannot.
    """
    result = depths([[1, 1], [9, 0.5], [1, 1], [0, 0]], [[1, 3], [1, 0.05], [1, NAN], [0.05, 0]])
    assert result == pytest.approx([0.5, 0.0, NAN, NAN], nan_ok=True)
    assert math.isnan(depths([[1, NAN]], [[1, 3]])[0])


def test_folders_of_other_models_are_looked_at_before_training(tmp_path: Path) -> None:
    """A retrained model needs its configuration, a judge its weights in safetensors, too."""
    rows = [Row("q", "a")]
    assert "no config.json" in UnlearningDepth(str(tmp_path)).fits(rows)
    assert "needs a judge" in Entailment(str(tmp_path)).fits(rows)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "entailment", "1": "neutral"}}', encoding="utf-8")
    assert UnlearningDepth(str(tmp_path)).fits(rows) == ""
    assert "no *.safetensors" in Entailment(str(tmp_path)).fits(rows)
    (tmp_path / "model.safetensors").touch()
    assert Entailment(str(tmp_path)).fits(rows) == ""


def test_only_these_metrics_give_nothing_between_0_and_1() -> None:
    """The exact bounds hang on it: a metric that gives other scores must not say so."""
    exact = {name.replace("-", "_") for name in names(Metric) if find(Metric, name).binary}
    assert exact == {"knn_hit", "multiple_choice", "negative_flips", "refusal"}
    assert not Metric.binary
