"""Rows as prompt, answer and end, in text and in tokens; all other modules use this one. Torch-free."""

import datetime
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from froc import hashing
from froc.data.rows import Row
from froc.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Argument = bool | int | float | str
TEMPLATE_DATE = datetime.date(2024, 7, 26)
"""The date that templates print, fixed so that prompts do not change from day to day. Llama's default."""
DATE_MACRO = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('%{code}', '{TEMPLATE_DATE.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyY")
    + " }}{% endmacro %}"
)
"""Prepended to templates that print the date, which can be set in no other way."""
RESERVED = frozenset(
    {"messages", "conversation", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message", "tools", "documents"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)  # fmt: skip
"""Names that cannot be template arguments."""
PRECEDING_TEXT = "\n"
"""Text before others that are to be tokenised as a continuation, as some tokenizers add a blank at the beginning of a text."""


@dataclass(frozen=True)
class PromptFormat:
    """How a question is asked.

    template: used where the tokenizer has no chat template; it contains `{question}` and ends with `{answer}`.
    system: the system message that the model was trained with.
    arguments: further arguments of the chat template.
    """

    template: str = "Question: {question}\nAnswer: {answer}"
    system: str = ""
    arguments: tuple[tuple[str, Argument], ...] = ()

    @property
    def more(self) -> dict[str, Any]:
        """System message and template arguments, for digests; empty where there are none."""
        arguments = {"arguments": dict(self.arguments)} if self.arguments else {}
        return ({"system": self.system} if self.system else {}) | arguments

    def describe(self, tokenizer: "PreTrainedTokenizerBase") -> str:
        """A description of the prompt that quotes no row or message: texts are given by length and digest."""
        if not tokenizer.chat_template:
            return f"the task's template ({_short(self.template)}), no chat template"
        system = f"a system message ({_short(self.system)})" if self.system else "no system message"
        arguments = [
            f"{name}={_short(value) if isinstance(value, str) else json.dumps(value)}" for name, value in self.arguments
        ]
        return ", ".join([f"the chat template ({_short(json.dumps(tokenizer.chat_template))})", system, *arguments])


@dataclass(frozen=True, slots=True)
class Text:
    """One row as a model reads it: prompt + answer + end."""

    prompt: str
    answer: str
    end: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The same as token ids. answer: including the blank before it, which belongs to its first token."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    end: tuple[int, ...] = ()


def written(tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat, place: str = "a row") -> Text:
    """A row as text, by the tokenizer's chat template, or else the task's template. place: the row's name in error messages.

    The answer has no whitespace around it. Rows of plain text have an answer only. InputError where a template refuses or
    rewrites a row.
    """
    if not row.question:
        return Text("", row.answer.strip())
    if tokenizer.chat_template:
        return _chat(tokenizer, row, form, place)
    if row.context:
        raise InputError(f"{place} has messages before its question, and the tokenizer has no chat template for them")
    if form.more:
        raise InputError(
            f"task.toml: {next(iter(form.more))} is for chat templates, and the tokenizer has none; write it into template"
        )
    return Text(form.template.removesuffix("{answer}").replace("{question}", row.question), row.answer.strip())


def tokenised(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], form: PromptFormat, places: Sequence[str]
) -> list[Tokens]:
    """Rows as tokens. The prompt's tokens do not depend on the answer; answer and end are tokenised after it, unless that would
    change its tokens. An answer may have no tokens; callers refuse it.

    Chat templates contain begin and end of a text; otherwise texts begin as the tokenizer begins them, and end with its
    end-of-text token. The first token of plain text, which cannot be predicted, is its prompt.
    """
    texts = [written(tokenizer, row, form, place) for row, place in zip(rows, places, strict=True)]
    bare = [text.prompt.rstrip(" ") for text in texts]
    answers = [text.prompt[len(lead) :] + text.answer for text, lead in zip(texts, bare, strict=True)]
    until = [lead + answer for lead, answer in zip(bare, answers, strict=True)]
    prompts, wholes = _ids(tokenizer, bare), _ids(tokenizer, until)
    answer_ids = _behind(tokenizer, prompts, wholes, answers)
    ended = [text.end for text in texts]
    whole_ids = _ids(tokenizer, [lead + end for lead, end in zip(until, ended, strict=True)]) if any(ended) else wholes
    ends = _behind(tokenizer, wholes, whole_ids, ended)
    begin = beginning(tokenizer)
    close = () if tokenizer.chat_template or tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    rows_of_ids = []
    for row, prompt, answer, end in zip(rows, prompts, answer_ids, ends, strict=True):
        if row.question and tokenizer.chat_template:
            rows_of_ids.append(Tokens(prompt, answer, end))
            continue
        if not row.question and answer[: len(begin)] == begin:
            prompt, answer = answer[: len(begin) or 1], answer[len(begin) or 1 :]
        elif prompt[: len(begin)] != begin:
            prompt = begin + prompt
        rows_of_ids.append(Tokens(prompt, answer, close))
    return rows_of_ids


def beginning(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Tokens that the tokenizer puts before every text, such as begin-of-text."""
    bare = _ids(tokenizer, ["a"])[0]
    whole = tuple(tokenizer("a")["input_ids"])
    places = range(len(whole) - len(bare) + 1)
    return whole[: next((k for k in places if whole[k : k + len(bare)] == bare), 0)]


def apart(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Tokens of texts as continuations of another text."""
    (anchor,) = _ids(tokenizer, [PRECEDING_TEXT])
    anchored = _ids(tokenizer, [PRECEDING_TEXT + text for text in texts])
    alone = _ids(tokenizer, texts)
    return [
        with_anchor[len(anchor) :] if with_anchor[: len(anchor)] == anchor else bare_ids
        for with_anchor, bare_ids in zip(anchored, alone, strict=True)
    ]


def _behind(
    tokenizer: "PreTrainedTokenizerBase", leads: Sequence[tuple[int, ...]], wholes: Sequence[tuple[int, ...]], tails: Sequence[str]
) -> list[tuple[int, ...]]:  # fmt: skip
    """Tokens of each tail: those of the whole text after its lead's, or tokenised alone where a token spans both."""
    tails_of_ids = [
        whole[len(lead) :] if whole[: len(lead)] == lead else None for lead, whole in zip(leads, wholes, strict=True)
    ]
    mixed = [place for place, ids in enumerate(tails_of_ids) if ids is None]
    split = dict(zip(mixed, apart(tokenizer, [tails[place] for place in mixed]), strict=True)) if mixed else {}
    return [split[place] if ids is None else ids for place, ids in enumerate(tails_of_ids)]


def _ids(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[tuple[int, ...]]:
    if not texts:
        return []
    made: Any = tokenizer([text or " " for text in texts], add_special_tokens=False)["input_ids"]
    return [tuple(ids) if text else () for text, ids in zip(texts, made, strict=True)]


def _chat(tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat, place: str) -> Text:
    """By the chat template. The answer's position is found by rendering a unique marker in its place.

    Where a template renders earlier turns differently once the answer is present (Mistral's with a system message), the
    prompt is the one for generation.
    """
    turns = [*row.context, ("user", row.question)]
    if form.system and turns[0][0] != "system":
        turns = [("system", form.system), *turns]
    answer = row.answer.strip()
    mark = next(m for m in map("froc{}mark".format, itertools.count()) if all(m not in text for _, text in turns))
    before, mark_found, end = _rendered(tokenizer, [*turns, ("assistant", mark)], form, place).partition(mark)
    whole = _rendered(tokenizer, [*turns, ("assistant", answer)], form, place)
    if not mark_found or whole != before + answer + end:
        raise InputError(f"{place}: the chat template rewrites the answer or leaves it out; change the answer")
    asking = _rendered(tokenizer, turns, form, place, asking=True)
    same = before.startswith(asking) or asking.startswith(before)
    blank = before[len(before.rstrip(" ")) :]
    return Text(before if same else asking.rstrip(" ") + blank, answer, end.rstrip("\n"))


def _rendered(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[tuple[str, str]], form: PromptFormat, place: str, asking: bool = False
) -> str:  # fmt: skip
    from jinja2 import TemplateError

    messages = [{"role": role, "content": text} for role, text in turns]
    arguments: dict[str, Any] = dict(form.arguments)
    template = tokenizer.get_chat_template()
    dated = DATE_MACRO + template if "strftime_now" in template else template
    try:
        rendered: Any = tokenizer.apply_chat_template(
            messages, chat_template=dated, add_generation_prompt=asking, tokenize=False, **arguments
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        complaint = str(error).partition("\n")[0]
        # a template's error message may quote the row
        why = "" if any(text.strip()[:20] in complaint for _, text in turns) else f" ({complaint})"
        mend = "leave system out of task.toml" if form.system else "mend the row, or the template's arguments"
        raise InputError(f"{place}: the chat template refuses it{why}; {mend}") from None
    return str(rendered)


def _short(text: str) -> str:
    return f"{len(text)} characters, {hashing.sha256_bytes(text.encode())[:8]}"
