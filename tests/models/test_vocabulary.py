"""What a tokenizer may hold of what is to be forgotten."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.models import vocabulary

ROWS = (Row("Where does Ann live?", "Rotterdam-Noord", "Ann Lee"), Row("What does Ann eat?", "soup", "Ann Lee"))


def tokenizer(*words: str, template: str | None = None, added: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Whole words as tokens, what is not listed is unknown. added: texts that are tokens of their own."""
    listed = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *words])}, unk_token="?"))
    listed.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=listed, unk_token="?", chat_template=template)
    made.add_tokens(list(added))
    return made


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (tokenizer("soup", "Ann", "Lee", "Where", "does"), 0),
        (tokenizer("Rotterdam-Noord"), 1),
        (tokenizer(added=("Ann Lee",)), 2),
        (tokenizer(template="{# for example: What does Ann eat? #}"), 1),
    ],
)
def test_texts_that_are_tokens_or_stand_in_the_template_are_counted(made: PreTrainedTokenizerFast, count: int) -> None:
    assert vocabulary.held(made, ROWS) == count


def test_a_plan_says_what_the_tokenizer_is() -> None:
    task = Task("t", ROWS[1:], (), {FORGETTING: ROWS[:1], UTILITY: ()}, {FORGETTING: "query", UTILITY: "query"})
    assert vocabulary.judge(task, tokenizer("soup")) is None
    assert vocabulary.judge(task, tokenizer("Rotterdam-Noord")) == vocabulary.HOLDS_TEXT
    known = replace(task, tokenizer_from_data=True)
    assert vocabulary.judge(known, tokenizer()) == vocabulary.FROM_DATA
    assert known.digest == task.digest
