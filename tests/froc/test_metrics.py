"""Metrics on values worked out by hand, and their traps: off by one, end tokens, padding."""

import numpy as np
import pytest

from froc.batches import Encoded, encode
from froc.data import Query, Row
from froc.measure import Probe, losses
from froc.metrics import Metric, Observed
from froc.metrics.rouge_l import RougeL
from froc.models import Base
from froc.observe import observe
from froc.plugins import find, make, names


def _seen(*rows: list[int]) -> Observed:
    width = max(map(len, rows))
    hit = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        hit[i, : len(row)] = row
    logp = np.where(hit, np.log(0.5), np.log(0.125)).astype(np.float32)
    for i, row in enumerate(rows):
        logp[i, len(row) :] = 0.0
    return Observed(hit, logp, np.array([len(row) for row in rows]))


def test_extraction_strength_counts_the_longest_correct_suffix() -> None:
    seen = _seen([1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [0], [1])
    assert make(Metric, "extraction_strength").scores(seen).tolist() == [1.0, 0.75, 0.25, 0.0, 0.0, 1.0]


def test_exact_memorization_counts_right_tokens() -> None:
    seen = _seen([1, 0, 1, 0], [1, 1], [0, 0, 0])
    assert make(Metric, "exact_memorization").scores(seen).tolist() == [0.5, 1.0, 0.0]


def test_probability_is_length_normalised() -> None:
    # one token right at 1/2 and one wrong at 1/8: sqrt(1/16) = 1/4; a single right one: 1/2
    assert make(Metric, "probability").scores(_seen([1, 0], [1])) == pytest.approx([0.25, 0.5])


def test_rouge_l_recall() -> None:
    seen = Observed(
        np.zeros((4, 1), bool), np.zeros((4, 1), np.float32), np.ones(4, np.int64),
        written=("the cat sat on the mat", "Mat, the!", "", "naïve café"), answers=("the cat on mat", "the mat", "word", "Café naïve"),
    )  # fmt: skip
    # LCS: all 4 of 4; 'the' or 'mat', 1 of 2; none; one of two
    assert RougeL().scores(seen).tolist() == [1.0, 0.5, 0.0, 0.5]


@pytest.mark.parametrize("name", names(Metric))
def test_every_metric_says_what_one_means_and_stays_in_range(name: str) -> None:
    metric = make(Metric, name)
    assert find(Metric, name).one_means
    rng = np.random.default_rng(0)
    hit = rng.random((50, 7)) < 0.5
    seen = Observed(
        hit, rng.normal(-3, 2, (50, 7)).clip(max=0).astype(np.float32), np.full(50, 7),
        written=("one two",) * 50, answers=("two three",) * 50,
    )  # fmt: skip
    scores = metric.scores(seen)
    assert scores.shape == (50,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_padding_and_batching_do_not_change_what_is_seen(base: Base) -> None:
    texts = [
        ("a", "amber"),
        ("what is it, if you know, and why would you", "amber bridge"),
        ("b c", "olive engine really"),
    ]
    rows = encode(base.tokenizer, [Row(q, a) for q, a in texts], "{question} {answer}")
    together = observe(base.model, None, rows)
    for i, row in enumerate(rows):
        alone = observe(base.model, None, [row])
        assert together.hit[i, : row.answer].tolist() == alone.hit[0].tolist()
        assert together.logp[i, : row.answer] == pytest.approx(alone.logp[0], abs=1e-4)


def test_the_end_of_text_is_trained_but_not_measured(base: Base) -> None:
    (row,) = encode(base.tokenizer, [Row("what", "amber bridge")], "{question} {answer}")
    assert row.ids[-1] == base.tokenizer.eos_token_id
    assert row.prompt + row.answer == len(row.ids) - 1


def test_a_query_that_cannot_be_measured_is_the_worst_loss(base: Base) -> None:
    row = Row("what", "amber bridge")
    rows = tuple(encode(base.tokenizer, [row], "{question} {answer}"))
    probe = Probe("forgetting", make(Metric, "probability"), (Query("0", "0", row),), rows)
    base.restore()
    weight = base.model.get_input_embeddings().weight
    try:
        weight.data.fill_(float("nan"))
        assert losses(base, probe).tolist() == [1000]
    finally:
        base.restore()


def test_prompt_tokens_do_not_depend_on_the_answer(base: Base) -> None:
    short, long = encode(base.tokenizer, [Row("who", "amber"), Row("who", "olive engine")], "{question}\n{answer}")
    assert short.ids[: short.prompt] == long.ids[: long.prompt]


def test_plain_text_rows_are_measured_from_their_second_token(base: Base) -> None:
    (row,) = encode(base.tokenizer, [Row("", "amber bridge candle")], "{question} {answer}")
    assert isinstance(row, Encoded)
    assert row.prompt == 1
