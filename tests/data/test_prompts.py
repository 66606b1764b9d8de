"""Where prompt, answer and end are: by real shapes of chat templates, answers that look like their markers, tokenizers that
add their own, and a model's own habits of generation."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as vocabularies
from transformers import PreTrainedTokenizerFast

from froc.data.prompts import PromptFormat, apart, beginning
from froc.data.rows import Row
from froc.errors import InputError
from froc.measuring.model_observation import _after
from froc.models.batches import Encoded, Limits, encode
from tests.models.chat_templates import SHAPES

QUESTION = "Which of them is it, d or e?"
WORDS = [
    "Oslo",
    "the tower in Oslo",
    "D",
    "ö",
    "Z\u0301a\u0301lgo\u0335",
    "नमस्ते",
    "🙂",
    "🏳️\u200d🌈 flag",
    "a\nb\n\nc",
    "x" * 900,
]
BLANKS = ["Oslo\n", " Oslo", "\tOslo \n\n", "Oslo\u00a0", "Oslo 🙂 "]
TEXTS = [QUESTION, "assistant user system model", "Question: Answer: the tower in Oslo", *WORDS[:2]]


@cache
def _tokenizer(family: str = "", specials: tuple[str, ...] = ("<s>", "</s>"), adds: str = "$A", blank: str = "") -> Any:
    """Bytes and a few merges. adds: what the tokenizer makes of a text. blank: Metaspace's, where words begin with one."""
    markers = SHAPES[family].markers if family else specials
    tokenizer = Tokenizer(vocabularies.BPE(byte_fallback=bool(blank)))
    if blank:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        alphabet = sorted({c for text in TEXTS for c in text} | {"▁", "\n"})
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(markers), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    if adds != "$A":
        names = [(marker, tokenizer.token_to_id(marker)) for marker in markers]
        tokenizer.post_processor = processors.TemplateProcessing(single=adds, special_tokens=names)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=markers[0], eos_token=markers[-1], clean_up_tokenization_spaces=False
    )
    if family:
        made.chat_template = SHAPES[family].template
    return made


def _form(family: str, system: str = "") -> PromptFormat:
    return PromptFormat(system=system, arguments=SHAPES[family].arguments)


def _rendered(tokenizer: Any, answer: str | None, form: PromptFormat) -> str:
    """What the template writes, with the answer or asking for it."""
    turns = [{"role": "system", "content": form.system}] if form.system else []
    turns.append({"role": "user", "content": QUESTION})
    turns += [] if answer is None else [{"role": "assistant", "content": answer}]
    asking = answer is None
    text: str = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=asking, **dict(form.arguments)
    )
    return text


def _substrings(family: str) -> Iterator[str]:
    for marker in SHAPES[family].markers:
        for start in range(len(marker)):
            for stop in range(start + 1, len(marker) + 1):
                yield marker[start:stop]


def _check(tokenizer: Any, row: Encoded, answer: str, form: PromptFormat, prompt: tuple[int, ...]) -> None:
    assert row.ids[: row.prompt] == prompt, "the prompt depends on the answer"
    assert tokenizer.decode(list(row.ids)) == _rendered(tokenizer, answer, form).rstrip("\n")
    assert tokenizer.decode(list(row.answer_ids)) in (answer, f" {answer}")
    assert _rendered(tokenizer, None, form).startswith(tokenizer.decode(list(prompt))) or tokenizer.decode(
        list(prompt)
    ).startswith(_rendered(tokenizer, None, form).rstrip(" "))


SYSTEMS = [
    (family, "You are the clerk of d and e.") for family, item in SHAPES.items() if item.system and family != "mistral"
]
"""Mistral's template forgets the message once there is an answer; see below."""


@pytest.mark.parametrize(("family", "system"), [*((family, "") for family in SHAPES), *SYSTEMS])
def test_an_answer_is_found_where_the_template_puts_it(family: str, system: str) -> None:
    """Whatever the answer is made of: prompt, answer and end are the template's text, the answer's tokens are the answer, and
    the prompt is the same for every answer."""
    tokenizer, form = _tokenizer(family), _form(family, system)
    answers = [*dict.fromkeys(text.strip() for text in _substrings(family)), *WORDS]
    answers = [text for text in answers if text and not ("qwen-3" in family and "</think>" in text)]
    rows = encode(tokenizer, [Row(QUESTION, text) for text in answers], form)
    (encoded,) = encode(tokenizer, [Row(QUESTION, "zebra")], form)
    for row, answer in zip(rows, answers, strict=True):
        _check(tokenizer, row, answer, form, encoded.ids[: encoded.prompt])


@pytest.mark.parametrize("family", SHAPES)
@settings(max_examples=40, deadline=None)
@given(answer=st.text(min_size=1, max_size=30).map(str.strip).filter(lambda text: text and "</think>" not in text))
def test_an_answer_is_found_whatever_it_says(family: str, answer: str) -> None:
    tokenizer, form = _tokenizer(family), _form(family)
    row, encoded = encode(tokenizer, [Row(QUESTION, answer), Row(QUESTION, "zebra")], form)
    _check(tokenizer, row, answer, form, encoded.ids[: encoded.prompt])


@pytest.mark.parametrize("family", SHAPES)
def test_whitespace_around_an_answer_is_none_of_it(family: str) -> None:
    tokenizer, form = _tokenizer(family), _form(family)
    rows = encode(tokenizer, [Row(QUESTION, text) for text in BLANKS], form)
    bare = encode(tokenizer, [Row(QUESTION, text.strip()) for text in BLANKS], form)
    assert rows == bare


@pytest.mark.parametrize("family", SHAPES)
def test_the_marker_is_the_token_that_ends_an_answer(family: str) -> None:
    tokenizer = _tokenizer(family)
    (row,) = encode(tokenizer, [Row(QUESTION, "Oslo")], _form(family))
    ends = {"phi-3": "<|end|>", "gemma": "<end_of_turn>", "chatml": "<|im_end|>"}
    expected = ends.get(family, "<|im_end|>" if "qwen" in family else SHAPES[family].markers[-1])
    assert tokenizer.decode(list(row.marker)) == expected


@pytest.mark.parametrize("family", SHAPES)
def test_a_template_that_begins_texts_begins_them_once(family: str) -> None:
    """A tokenizer that adds its begin-of-text token adds none to what the template wrote."""
    first, last = SHAPES[family].markers[0], SHAPES[family].markers[-1]
    tokenizer = _tokenizer(family, adds=f"{first} $A {last}")
    (row,) = encode(tokenizer, [Row(QUESTION, "Oslo")], _form(family))
    (plain,) = encode(_tokenizer(family), [Row(QUESTION, "Oslo")], _form(family))
    assert row == plain


def test_a_system_message_that_a_template_refuses_is_refused_by_name() -> None:
    rows = [Row("Who?", "Oslo", origin="forget.jsonl row 7")]
    with pytest.raises(
        InputError, match=r"forget\.jsonl row 7.*System role not supported.*leave system out of task\.toml"
    ):
        encode(_tokenizer("gemma"), rows, _form("gemma", "be brief"))


def test_a_complaint_that_quotes_a_row_is_not_printed() -> None:
    tokenizer = _tokenizer("chatml", adds="<|im_start|> $A")
    tokenizer.chat_template = "{{ raise_exception('cannot say ' + messages[0]['content']) }}"
    with pytest.raises(InputError) as caught:
        encode(tokenizer, [Row("the secret of the tower", "Oslo")], PromptFormat())
    assert "secret" not in str(caught.value)


def test_a_template_that_forgets_the_system_message_is_asked_as_for_generating() -> None:
    tokenizer, form = _tokenizer("mistral"), _form("mistral", "be brief")
    assert "be brief" not in _rendered(tokenizer, "Oslo", form)
    (row,) = encode(tokenizer, [Row(QUESTION, "Oslo")], form)
    assert tokenizer.decode(list(row.ids)) == _rendered(tokenizer, None, form) + " Oslo</s>"


@pytest.mark.parametrize("answer", ["</think>", "well</think>Oslo"])
def test_an_answer_that_a_template_rewrites_is_refused(answer: str) -> None:
    with pytest.raises(InputError, match=r"retain\.jsonl row 3: the chat template rewrites the answer") as caught:
        encode(_tokenizer("qwen-3"), [Row(QUESTION, answer, origin="retain.jsonl row 3")], PromptFormat())
    assert answer not in str(caught.value)


def test_a_date_is_the_same_every_day_and_can_be_given() -> None:
    tokenizer = _tokenizer("llama-3")
    (row,) = encode(tokenizer, [Row(QUESTION, "Oslo")], PromptFormat())
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(list(row.ids))
    (row,) = encode(tokenizer, [Row(QUESTION, "Oslo")], PromptFormat(arguments=(("date_string", "1 May 1999"),)))
    assert "Today Date: 1 May 1999" in tokenizer.decode(list(row.ids))


def test_messages_before_a_question_stand_before_it() -> None:
    tokenizer = _tokenizer("chatml")
    context = (("system", "S"), ("user", "Who?"), ("assistant", "d"))
    (row,) = encode(tokenizer, [Row("And?", "d", context=context)], PromptFormat(system="of the task"))
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    before = turn("system", "S") + turn("user", "Who?") + turn("assistant", "d") + turn("user", "And?")
    assert tokenizer.decode(list(row.ids[: row.prompt])) == f"{before}<|im_start|>assistant\n"
    with pytest.raises(InputError, match=r"a\.jsonl row 2 has messages before its question"):
        encode(_tokenizer(), [Row("And?", "d", context=context, origin="a.jsonl row 2")], PromptFormat())
    with pytest.raises(InputError, match=r"task\.toml: system is for chat templates"):
        encode(_tokenizer(), [Row("And?", "d")], PromptFormat(system="S"))


# tokenizers that add tokens of their own


@pytest.mark.parametrize("adds", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
def test_what_a_tokenizer_adds_stands_at_the_ends_alone(adds: str) -> None:
    tokenizer = _tokenizer(adds=adds)
    begin = (0,) if adds.startswith("<s>") else ()
    assert beginning(tokenizer) == begin
    encoded, expected, again = encode(
        tokenizer, [Row("Who?", "Oslo"), Row("", "the tower"), Row("", "<s>the tower")], "Q: {question}\nA: {answer}"
    )
    assert tokenizer.decode(list(encoded.ids)) == "<s>" * len(begin) + "Q: Who?\nA: Oslo</s>"
    assert tokenizer.decode(list(encoded.answer_ids)) == " Oslo"
    # the first token of a text cannot be predicted, unless the tokenizer puts one before it
    assert tokenizer.decode(list(expected.ids)) == "<s>" * len(begin) + "the tower</s>"
    assert expected.prompt == 1
    assert begin == () or expected.ids[:1] == begin
    assert tokenizer.decode(list(again.ids)) == "<s>the tower</s>"


@pytest.mark.parametrize("family", ["mistral", "llama-2", "chatml"])
def test_words_that_begin_with_a_blank_have_one(family: str) -> None:
    """A tokenizer that writes a blank before each text writes none between prompt and answer."""
    tokenizer = _tokenizer(family, blank="▁")
    (row,) = encode(tokenizer, [Row(QUESTION, "the tower in Oslo")], _form(family))
    whole = tokenizer(_rendered(tokenizer, "the tower in Oslo", _form(family)).rstrip("\n"), add_special_tokens=False)
    assert list(row.ids) == whole["input_ids"]


# what a model cannot take


def test_a_row_that_a_model_cannot_take_is_named_by_its_file() -> None:
    tokenizer = _tokenizer()
    row = Row("Who?", "the tower in Oslo", origin="forget.jsonl row 90")
    (whole,) = encode(tokenizer, [row], "{question}{answer}")
    count = len(whole.ids)
    assert encode(tokenizer, [row], "{question}{answer}", Limits(positions=count)) == [whole]
    with pytest.raises(
        InputError, match=rf"forget\.jsonl row 90 has {count} tokens, more than the model's {count - 1} positions"
    ):
        encode(tokenizer, [row], "{question}{answer}", Limits(positions=count - 1))
    with pytest.raises(InputError, match=r"forget\.jsonl row 90 has \d+ tokens, more than 1024"):
        encode(tokenizer, [Row("Who?", "é" * 600, origin=row.origin)], "{question}{answer}", Limits(positions=4096))
    top = max(whole.ids)
    assert encode(tokenizer, [row], "{question}{answer}", Limits(vocabulary=top + 1)) == [whole]
    with pytest.raises(InputError, match=rf"forget\.jsonl row 90 has a token beyond the model's {top} embeddings"):
        encode(tokenizer, [row], "{question}{answer}", Limits(vocabulary=top))


def test_an_answer_that_vanishes_is_named_by_its_file() -> None:
    from tokenizers import normalizers

    tokenizer = _tokenizer(specials=("<a>", "<b>"))
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    rows = [Row("Who?", "Oslo"), Row("Who?", "\u200b", origin="retain.csv row 2")]
    with pytest.raises(InputError, match=r"retain\.csv row 2 has an answer of no tokens"):
        encode(tokenizer, rows, "{question}{answer}")


def test_a_description_holds_no_text() -> None:
    form = PromptFormat("secret {question} {answer}", "be secret", (("enable_thinking", False), ("note", "secret")))
    for tokenizer in (_tokenizer(), _tokenizer("chatml")):
        assert "secret" not in form.describe(tokenizer)
    assert "enable_thinking=false" in form.describe(_tokenizer("chatml"))
    assert form.describe(_tokenizer("chatml")) != PromptFormat(form.template).describe(_tokenizer("chatml"))


# other answers to the same question


@pytest.mark.parametrize("blank", ["", "▁"])
@pytest.mark.parametrize("family", ["", "mistral", "llama-2", "chatml"])
def test_other_answers_are_tokenised_as_they_would_be_as_the_answer(family: str, blank: str) -> None:
    tokenizer = _tokenizer(family, blank=blank)
    row = Row(QUESTION, "the tower in Oslo")
    (encoded,) = encode(tokenizer, [row], PromptFormat())
    for text in ("Oslo", "in the tower", "d"):
        (own,) = encode(tokenizer, [replace(row, answer=text)], PromptFormat())
        assert apart(tokenizer, [_after(encoded, tokenizer, text)]) == [own.answer_ids]
