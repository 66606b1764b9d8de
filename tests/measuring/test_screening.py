"""Rows that a model cannot take are refused before anything is trained or opened."""

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError
from froc.measuring.measurement import measurement
from froc.measuring.screening import refuse_rows
from froc.models.base import Base, wrap
from tests.training.small import gpt2


@pytest.fixture(scope="module")
def base() -> Base:
    """A model with 64 positions whose tokens are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: k for k, letter in enumerate(["<end>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    return wrap("small", gpt2(257), made)


def _rows(name: str) -> tuple[Row, ...]:
    return tuple(
        Row(f"Who is {name}{k}?", f"{name}{k}", f"g{k}", others=("x",), origin=f"{name}.jsonl row {k}")
        for k in range(8)
    )


TASK = Task(
    "t", _rows("f"), _rows("r"), {FORGETTING: _rows("fq"), UTILITY: _rows("rq")}, dict.fromkeys((FORGETTING, UTILITY), "query"),
    template="{question} {answer}",
)  # fmt: skip
PLAIN = {FORGETTING: measurement("extraction_strength"), UTILITY: measurement("extraction_strength/utility")}


def _refused(base: Base, task: Task, measures: Any) -> str:
    view, _ = split(task, 0.5)
    try:
        refuse_rows(base, task, view, measures)
    except InputError as error:
        return str(error)
    return ""


def test_rows_that_fit_are_taken(base: Base) -> None:
    assert _refused(base, TASK, PLAIN) == ""


@pytest.mark.parametrize("pool", [FORGETTING, UTILITY])
@pytest.mark.parametrize("place", range(8))
def test_a_query_that_is_too_long_is_named_on_either_side_of_the_split(base: Base, pool: str, place: int) -> None:
    rows = list(TASK.queries[pool])
    rows[place] = replace(rows[place], answer="y" * 99)
    text = _refused(base, replace(TASK, queries={**TASK.queries, pool: tuple(rows)}), PLAIN)
    assert text.startswith(f"{rows[place].origin} has ")
    assert "more than the model's 64 positions" in text
    assert "yyy" not in text


@pytest.mark.parametrize("name", ["forget", "retain", "holdout"])
def test_other_rows_are_looked_at_too(base: Base, name: str) -> None:
    long: Any = {name: (Row("Who?", "y" * 99, origin=f"{name}.csv row 3"),)}
    assert _refused(base, replace(TASK, **long), PLAIN).startswith(f"{name}.csv row 3 has ")


def test_other_answers_and_attacks_forms_are_looked_at_where_they_are_read(base: Base) -> None:
    rows = (replace(TASK.queries[FORGETTING][0], others=("y" * 99,)), *TASK.queries[FORGETTING][1:])
    task = replace(TASK, queries={**TASK.queries, FORGETTING: rows})
    assert _refused(base, task, PLAIN) == ""
    assert _refused(base, task, PLAIN | {"options": measurement("multiple_choice")}).startswith("fq.jsonl row 0 has ")
    shown = PLAIN | {"shots": measurement("extraction_strength@in_context:shots=5")}
    assert _refused(base, TASK, shown).startswith("fq.jsonl row 0 has ")


@pytest.mark.parametrize("attack", ["soft_prompt:tokens={}", "coordinate_suffix:tokens={}"])
def test_tokens_that_an_attack_puts_into_a_prompt_must_fit_too(base: Base, attack: str) -> None:
    longest = max(len(f"{row.question} {row.answer}") + 1 for row in (*TASK.forget, *TASK.queries[FORGETTING]))
    room = 64 - longest
    rows = tuple(replace(row, question=row.question + "?" * (room - 9)) for row in TASK.queries[FORGETTING])
    task = replace(TASK, queries={**TASK.queries, FORGETTING: rows})
    risks = [PLAIN | {"attacked": measurement(f"extraction_strength@{attack.format(tokens)}")} for tokens in (9, 10)]
    assert _refused(base, task, risks[0]) == ""
    assert _refused(base, task, risks[1]).startswith("fq.jsonl row 0 has ")


def test_a_token_that_the_model_does_not_know_is_named(base: Base) -> None:
    small = wrap("small", gpt2(200), base.tokenizer)
    assert "beyond the model's 200 embeddings" in _refused(small, TASK, PLAIN)
