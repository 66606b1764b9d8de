"""What the model writes and what the measurement reads: the same, or the search does not begin."""

import re

import pytest

from froc.data.prompts import PromptFormat
from froc.data.rows import Row
from froc.data.task import FORGETTING, Task
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.measuring.agreement import TOLERATED_DISAGREEMENTS, Disagreement, disagreements, refuse
from froc.models.base import Base
from froc.models.batches import encode
from tests.small_model import SMALL

FORMAT = embedded_text.task(SMALL).format


def check_agreement(base: Base, rows: list[Row], form: PromptFormat) -> tuple[list[Disagreement], int]:
    # other tests of this process may have trained it
    base.restore()
    return disagreements(base.model, base.tokenizer, rows, encode(base.tokenizer, rows, form), form)


def queries(task: Task) -> list[Row]:
    return list(task.queries[FORGETTING][:20])


def test_a_prompt_that_the_model_was_taught_with_is_agreed_on(base: Base, task: Task) -> None:
    result, count = check_agreement(base, queries(task), FORMAT)
    assert (result, count) == ([], 8)


def test_answers_that_come_and_are_not_seen_are_found(base: Base, task: Task) -> None:
    """The model answers behind a blank that the template lacks."""
    form = PromptFormat(FORMAT.template.replace(" {answer}", "{answer}"))
    assert form != FORMAT
    result, count = check_agreement(base, queries(task), form)
    assert count == 8
    assert len(result) > TOLERATED_DISAGREEMENTS
    assert {(item.measured, item.generated) for item in result} == {(False, True)}
    with pytest.raises(InputError, match=r"disagree on \d of 8 queries .*mend template") as refused:
        refuse(result, count, "the task's template")
    # lengths and places, and nothing of what was asked or answered
    text = str(refused.value)
    for row in queries(task):
        assert row.answer not in text
        assert row.question not in text


def test_a_measurement_that_sees_what_is_not_written_is_found(base: Base, task: Task) -> None:
    """The answer stands in the prompt that is measured: to the measurement all of it comes."""
    base.restore()
    rows = queries(task)
    leaking = [encode(base.tokenizer, [row], FORMAT)[0] for row in rows]
    second = [Row(row.question, "never said of anybody", row.group) for row in rows]
    result, count = disagreements(base.model, base.tokenizer, second, leaking, FORMAT)
    assert count == 8
    assert {(item.measured, item.generated) for item in result} == {(True, False)}


def test_a_model_that_knows_nothing_is_agreed_on_too(base: Base, task: Task) -> None:
    """That is for the positive control to say."""
    rows = [Row(row.question, "never said of anybody", row.group) for row in queries(task)]
    assert check_agreement(base, rows, FORMAT) == ([], 8)


def test_texts_and_long_answers_are_not_asked(base: Base, task: Task) -> None:
    texts = [Row("", row.question) for row in queries(task)]
    assert check_agreement(base, texts, FORMAT) == ([], 0)
    long = [Row("Who?", " ".join(["word"] * 60))]
    assert check_agreement(base, long, FORMAT) == ([], 0)


@pytest.mark.parametrize(
    ("wrong", "asked_", "stops"), [(0, 8, False), (1, 8, False), (2, 8, True), (1, 1, True), (0, 0, False)]
)
def test_one_disagreement_may_be_rounding(wrong: int, asked_: int, stops: bool) -> None:
    result = [Disagreement(f"forget_queries.jsonl row {k}", True, False, 3, 12) for k in range(wrong)]
    if not stops:
        refuse(result, asked_, "a template")
        return
    with pytest.raises(InputError, match=re.escape("forget_queries.jsonl row 0: by its 3 tokens the answer comes")):
        refuse(result, asked_, "a template")
