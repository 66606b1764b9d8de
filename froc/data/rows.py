"""Rows: a question with its answer, read from the shapes that data sets come in. Torch-free."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from froc.data.normal_form import content
from froc.data.row_files import Record, read
from froc.errors import InputError

ROLES = ("system", "user", "assistant")
OTHERS = ("others", "options", "choices", "perturbed_answer", "perturbed_answers")
PARAPHRASES = ("paraphrases", "paraphrased_question", "paraphrased_questions")
RESTATED = ("restated", "paraphrased_answer")
TRANSLATIONS = ("translations", "translated_question")
MULTI_HOP = ("multi_hop", "multi_hop_question", "multi_hop_questions")
EXPECTED = "question and answer, messages, prompt and completion, instruction and output, or text"


@dataclass(frozen=True, slots=True)
class Row:
    """A question and its answer; rows of plain text have an empty question. `group` names the person or document it is
    about ("" where unknown).

    others: wrong answers (options, perturbed answers). paraphrases: the question in other words. restated: the answer in
    other words. translations: the question in other languages. multi_hop: questions that lead to the answer over another fact. context: messages before the question, (role, text) each.
    origin: file and number in it, for messages; no part of what a row is.
    """

    question: str
    answer: str
    group: str = ""
    others: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    restated: str = ""
    translations: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    multi_hop: tuple[str, ...] = ()
    origin: str = field(default="", compare=False)

    @property
    def more(self) -> list[Any]:
        """Optional contents in addition to question, answer and group; empty where there are none."""
        extras = [list(self.others), list(self.paraphrases), self.restated, list(self.translations)]
        # rows without them keep the digests that they had before there were any
        extras += [list(self.multi_hop)] if self.multi_hop else []
        return extras if any(extras) else []

    @property
    def full_question(self) -> str:
        """The question with the messages before it; rows are compared and digested by it."""
        return json.dumps([*self.context, self.question]) if self.context else self.question

    @property
    def key(self) -> tuple[str, str]:
        """Question and answer, which identify a row."""
        return self.full_question, self.answer

    def at(self, name: str, number: int) -> str:
        """Its location for messages: its origin, or its number in `name` where it was made in memory."""
        return self.origin or f"{name} row {number}"


def read_rows(path: Path) -> tuple[Row, ...]:
    """Rows of a JSON Lines, JSON array, Parquet or CSV file, in any of the shapes of `SHAPES`.

    Raises InputError naming the file, the row (see `froc.data.row_files.Record`) and the mend.
    """
    rows = tuple(_row(record) for record in read(path))
    if not rows:
        raise InputError(f"{path.name} is empty; give at least one row with {EXPECTED}")
    return rows


def read_pools(path: Path) -> dict[str, tuple[Row, ...]]:
    """Rows of a file in which each names its `pool` (`forgetting`, `utility`): pool -> rows. Raises InputError as `read_rows` does."""
    pools: dict[str, tuple[Row, ...]] = {}
    for record in read(path):
        row = _row(record)
        pool = record.value.get("pool")
        if not isinstance(pool, str):
            raise InputError(
                f"{record.origin} has no column 'pool'; say in it what the row asks about, or give POOL=FILE"
            )
        pools[pool] = (*pools.get(pool, ()), row)
    if not pools:
        raise InputError(f"{path.name} is empty; give at least one row with {EXPECTED}")
    return pools


def stripped(rows: Sequence[Row]) -> tuple[tuple[Row, ...], int]:
    """Rows without whitespace around answers, and how many had some: chat templates strip it, so a model trained without it would
    look as if it knew nothing."""
    stripped_rows = tuple(map(_stripped, rows))
    return stripped_rows, sum(
        row.answer != stripped_row.answer for row, stripped_row in zip(rows, stripped_rows, strict=True)
    )


def _stripped(row: Row) -> Row:
    answer, others = row.answer.strip(), tuple(map(str.strip, row.others))
    return row if (answer, others) == (row.answer, row.others) else replace(row, answer=answer, others=others)


def refuse_overlaps(files: Mapping[str, Sequence[Row]]) -> None:
    """InputError where a row occurs twice: in one file of queries, or in two files that must be disjoint.

    Rows that are trained on may repeat within their own file.
    """
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    spelled: dict[tuple[str, str], str] = {}
    for name, rows in files.items():
        for number, row in enumerate(rows, start=1):
            place = row.at(name, number)
            if name.endswith(("queries", "wordings")) and row.key not in seen:
                first = spelled.setdefault((name, content(row.full_question, row.answer)), place)
                if first != place:
                    raise InputError(
                        f"{place} repeats {first} but for case, blanks or punctuation; a query counts once, remove one"
                    )
            if row.key not in seen:
                seen[row.key] = name, place
                continue
            file, first = seen[row.key]
            if file == name and not name.endswith(("queries", "wordings")):
                continue
            if file == name:
                raise InputError(f"{place} repeats {first}; a query counts once, remove one")
            raise InputError(f"{place} is also {first}; a row belongs to one file only")


def _row(record: Record) -> Row:
    where = record.origin
    if not isinstance(record.value, dict):
        raise InputError(f"{where} is no object; give {EXPECTED}")
    columns = _of_options(_lowered(record.value, where), where)
    row = _shaped(columns, where)
    group = columns.get("group")
    row = replace(row, group="" if group is None else str(group), origin=where)
    if not row.question:
        return row
    others, paraphrases, restated, translations, multi_hop = (
        _texts(columns, names, where) for names in (OTHERS, PARAPHRASES, RESTATED, TRANSLATIONS, MULTI_HOP)
    )
    others = tuple(text for text in others if text.strip() != row.answer.strip())
    return replace(
        row,
        others=others,
        paraphrases=paraphrases,
        restated="".join(restated[:1]),
        translations=translations,
        multi_hop=multi_hop,
    )


def _lowered(record: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Columns by their names in small letters."""
    names = [str(name).strip().lower() for name in record]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{where} has the column {twice[0]!r} twice, in other capitals; keep one of them")
    return dict(zip(names, record.values(), strict=True))


def _shaped(columns: Mapping[str, Any], where: str) -> Row:
    """Question, answer and context of a row, by the first shape whose columns it has."""
    filled = {name for name, value in columns.items() if value is not None}
    shape = next((names for names in SHAPES if filled.issuperset(names)), None)
    if shape is not None:
        return SHAPES[shape](columns, where)
    begun = next((names for names in SHAPES if set(names) & set(columns)), next(iter(SHAPES)))
    missing = next(name for name in begun if name not in filled)
    have = ", ".join(sorted(columns)) or "none"
    if missing in columns:
        raise InputError(f"{where}: {missing!r} must be text that is not blank")
    raise InputError(f"{where} has no column {missing!r} (it has: {have}); name the columns {EXPECTED}")


def _question_row(columns: Mapping[str, Any], where: str) -> Row:
    return Row(_text(columns, "question", where), _text(columns, "answer", where))


def _chatted(columns: Mapping[str, Any], where: str) -> Row:
    return _of_messages(columns["messages"], "messages", where)


def _completed(columns: Mapping[str, Any], where: str) -> Row:
    prompt, completion = columns["prompt"], columns["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _of_messages([*prompt, *completion], "prompt' with 'completion", where)
    return Row(_text(columns, "prompt", where), _text(columns, "completion", where))


def _instructed(columns: Mapping[str, Any], where: str) -> Row:
    instruction, beside = _text(columns, "instruction", where), columns.get("input")
    if beside is not None and not isinstance(beside, str):
        raise InputError(f"{where}: 'input' must be text")
    question = f"{instruction}\n{beside}" if beside and beside.strip() else instruction
    return Row(question, _text(columns, "output", where))


def _plain(columns: Mapping[str, Any], where: str) -> Row:
    return Row("", _text(columns, "text", where))


SHAPES: dict[tuple[str, ...], Callable[[Mapping[str, Any], str], Row]] = {
    ("question", "answer"): _question_row,
    ("messages",): _chatted,
    ("prompt", "completion"): _completed,
    ("instruction", "output"): _instructed,
    ("text",): _plain,
}
"""Required columns of a shape -> its reader; the first shape whose columns are all there is used."""


def _text(columns: Mapping[str, Any], name: str, where: str) -> str:
    value = columns.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name!r} must be text that is not blank")
    return value


def _of_messages(messages: Any, name: str, where: str) -> Row:
    """The last assistant's message is the answer, the user's before it the question, all before that the context."""
    if not isinstance(messages, list):
        raise InputError(f"{where}: {name!r} must be a list of messages, each with 'role' and 'content'")
    turns = [_turn(message, f"{where}: message {number}") for number, message in enumerate(messages, start=1)]
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise InputError(f"{where}: {name!r} must end with a message of the user and the assistant's answer to it")
    *context, (_, question), (_, answer) = turns
    return Row(question, answer, context=tuple(context))


def _turn(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise InputError(f"{where} must have 'role' (one of: {', '.join(ROLES)}) and 'content'")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{where}: 'content' must be text that is not blank")
    return str(message["role"]), content


def _of_options(columns: dict[str, Any], where: str) -> dict[str, Any]:
    """A multiple-choice row with `answer` as a place among `choices` (WMDP, MMLU), as question, answer and others."""
    place, choices = columns.get("answer"), columns.get("choices")
    if isinstance(place, bool) or not isinstance(place, int):
        return columns
    if not isinstance(choices, list) or not 0 <= place < len(choices):
        raise InputError(
            f"{where}: 'answer' is a number that is no place in 'choices'; put quotes around an answer, or count choices from 0"
        )
    return columns | {"answer": choices[place]}


def _texts(columns: Mapping[str, Any], names: Sequence[str], where: str) -> tuple[str, ...]:
    """Texts of the first of these columns that exists; a cell is one text or a list of texts."""
    name = next((name for name in names if columns.get(name) not in (None, "", [])), None)
    if name is None:
        return ()
    values = [columns[name]] if isinstance(columns[name], str) else columns[name]
    if not isinstance(values, list) or not all(isinstance(text, str) and text.strip() for text in values):
        raise InputError(f"{where}: {name!r} must be text or a list of texts, none of them blank")
    return tuple(values)
