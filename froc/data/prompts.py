"""Where a row's prompt, answer and end are, as text and as tokens: the one place that knows. Torch-free."""

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
TODAY = datetime.date(2024, 7, 26)
"""What templates that print a date are told it is, or a measurement of tomorrow would ask another question. Llama's own default."""
CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('%{code}', '{TODAY.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyY")
    + " }}{% endmacro %}"
)
"""Put before a template that asks for the date: there is no other way to tell it."""
RESERVED = frozenset(
    {"messages", "conversation", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message", "tools", "documents"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)  # fmt: skip
"""Names that are no arguments of a template."""
ANCHOR = "\n"
"""What text is tokenised behind, where it shall not be taken for the beginning of one: some tokenizers write a blank there."""


@dataclass(frozen=True)
class PromptFormat:
    """How a question is asked. template: where the tokenizer has no chat template; `{question}` stands in it, `{answer}` at
    its end. system: the system message that the model was taught with. arguments: what the chat template is given beside.
    """

    template: str = "Question: {question}\nAnswer: {answer}"
    system: str = ""
    arguments: tuple[tuple[str, Argument], ...] = ()

    @property
    def more(self) -> dict[str, Any]:
        """What a digest covers beside the template; empty where there is nothing."""
        arguments = {"arguments": dict(self.arguments)} if self.arguments else {}
        return ({"system": self.system} if self.system else {}) | arguments

    def describe(self, tokenizer: "PreTrainedTokenizerBase") -> str:
        """The prompt in words that hold no text of a row or a message: long texts by length and digest."""
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
    """The same as token ids. answer: with the blank before it, which belongs to its first token in every vocabulary."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    end: tuple[int, ...] = ()


def written(tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat, place: str = "a row") -> Text:
    """A row as text, by the tokenizer's chat template or else the task's. place: what messages call the row.

    The answer has no whitespace around it. Rows of plain text are their answer alone. InputError where a template refuses or
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
    """Rows as tokens. The prompt's are the same whatever the answer; answer and end are tokenised behind it as far as that
    leaves them so. An answer may be left without tokens: who calls says so.

    A chat template says itself what a text begins and ends with; else it begins as the tokenizer begins texts, and ends with
    its end-of-text token, whatever else the tokenizer would put there. Of plain text a first token that could not be
    predicted is the prompt.
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
    """What the tokenizer puts before a text, such as a begin-of-text token."""
    bare = _ids(tokenizer, ["a"])[0]
    whole = tuple(tokenizer("a")["input_ids"])
    places = range(len(whole) - len(bare) + 1)
    return whole[: next((k for k in places if whole[k : k + len(bare)] == bare), 0)]


def apart(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Tokens of texts that stand behind something, not at the beginning."""
    (anchor,) = _ids(tokenizer, [ANCHOR])
    anchored = _ids(tokenizer, [ANCHOR + text for text in texts])
    alone = _ids(tokenizer, texts)
    return [
        with_anchor[len(anchor) :] if with_anchor[: len(anchor)] == anchor else bare_ids
        for with_anchor, bare_ids in zip(anchored, alone, strict=True)
    ]


def _behind(
    tokenizer: "PreTrainedTokenizerBase", leads: Sequence[tuple[int, ...]], wholes: Sequence[tuple[int, ...]], tails: Sequence[str]
) -> list[tuple[int, ...]]:  # fmt: skip
    """Tokens of each tail: those of the whole behind its lead's, or apart where some would be of both."""
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
    """By the chat template: the answer's place is where it puts another text that stands nowhere else.

    Where a template writes the turns before an answer otherwise once the answer is there (Mistral's with a system message),
    the prompt is as it is for generating, for that is what the model will be asked.
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
    dated = CLOCK + template if "strftime_now" in template else template
    try:
        rendered: Any = tokenizer.apply_chat_template(
            messages, chat_template=dated, add_generation_prompt=asking, tokenize=False, **arguments
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        complaint = str(error).partition("\n")[0]
        # a template's complaint may quote what it complains about
        why = "" if any(text.strip()[:20] in complaint for _, text in turns) else f" ({complaint})"
        mend = "leave system out of task.toml" if form.system else "mend the row, or the template's arguments"
        raise InputError(f"{place}: the chat template refuses it{why}; {mend}") from None
    return str(rendered)


def _short(text: str) -> str:
    return f"{len(text)} characters, {hashing.sha256_bytes(text.encode())[:8]}"
