"""Rows as people have them: shapes, files, where each stands, what is left out of them, task folders."""

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.data.passages import MAX_TEXT_BYTES
from froc.data.rows import read_rows, refuse_overlaps, stripped
from froc.data.splits import opened_as, split
from froc.data.task import FORGETTING, UTILITY, WORDINGS, Row
from froc.data.tasks import folder as folders
from froc.errors import InputError
from froc.measuring.measurement import named

QUESTION_AND_ANSWER = ("Who?", "Oslo")
CHAT = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Oslo"}]
SHAPES: dict[str, dict[str, Any]] = {
    "question and answer": {"question": "Who?", "answer": "Oslo"},
    "capitals": {"Question": "Who?", " ANSWER": "Oslo"},
    "messages": {"messages": CHAT},
    "messages in parts": {
        "messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in CHAT]
    },
    "prompt and completion": {"prompt": "Who?", "completion": "Oslo"},
    "prompt and completion as messages": {"prompt": CHAT[:1], "completion": CHAT[1:]},
    "instruction and output": {"instruction": "Who?", "input": "", "output": "Oslo"},
}


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_say_the_same(tmp_path: Path, shape: str, ending: str) -> None:
    path = _write(tmp_path / f"rows.{ending}", [SHAPES[shape] | {"group": "a"}])
    (row,) = read_rows(path)
    assert row == Row(*QUESTION_AND_ANSWER, "a")
    assert row.origin == f"rows.{ending} row 1"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_say_the_same(tmp_path: Path, delimiter: str, start: str, end: str) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(start)
        table = csv.writer(stream, delimiter=delimiter, lineterminator=end)
        table.writerows([["Question", "answer", "group"], ["Who,\nor; what?", "Oslo", ""], ["Who?", 'the "d"', "g"]])
    first, second = read_rows(path)
    assert first == Row("Who,\nor; what?", "Oslo")
    assert second == Row("Who?", 'the "d"', "g")
    assert second.origin == "rows.csv row 2"


def test_an_input_follows_its_instruction_and_turns_precede_their_question(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        *CHAT,
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "d"},
    ]
    rows: list[dict[str, Any]] = [{"instruction": "Who?", "input": "of two", "output": "Oslo"}, {"messages": turns}]
    first, second = read_rows(_write(tmp_path / "rows.jsonl", rows))
    assert first == Row("Who?\nof two", "Oslo")
    assert second == Row("And?", "d", context=(("system", "Be brief."), ("user", "Who?"), ("assistant", "Oslo")))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"frage": "Who?", "antwort": "Oslo"}, r"no column 'question' \(it has: antwort, frage\); name the columns question and answer, messages, prompt"),
        ({"prompt": "Who?", "answer": "Oslo"}, "no column 'question'"),
        ({"prompt": "Who?", "response": "Oslo"}, "no column 'completion'"),
        ({"instruction": "Who?", "response": "Oslo"}, "no column 'output'"),
        ({"question": "Who?", "Question": "What?", "answer": "Oslo"}, "the column 'question' twice"),
        ({"messages": CHAT[:1]}, "'messages' must end with a message of the user and the assistant's answer"),
        ({"messages": CHAT + CHAT[:1]}, "'messages' must end with"),
        ({"messages": [CHAT[0], {"from": "gpt", "value": "Oslo"}]}, r"message 2 must have 'role' \(one of: system, user, assistant\)"),
        ({"messages": "Who?"}, "'messages' must be a list of messages"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": "  "}]}, "message 2: 'content' must be text"),
        ({"prompt": CHAT, "completion": "Oslo"}, "'prompt' must be text"),
        ({"text": " "}, "'text' must be text that is not blank"),
        ({"question": "Who?", "answer": None}, "'answer' must be text that is not blank"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_named_with_what_is_expected(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    path = _write(tmp_path / "rows.jsonl", [{"question": "Who?", "answer": "Oslo"}, row])
    with pytest.raises(InputError, match=rf"rows\.jsonl row 2.*{says}") as caught:
        read_rows(path)
    assert "Oslo" not in str(caught.value)


def test_a_row_stands_in_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"text": "a"}\n\n{"text": "b"}\n')
    assert [row.origin for row in read_rows(path)] == ["rows.jsonl row 2", "rows.jsonl row 4"]


def test_a_short_table_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\nWho?,Oslo\nWho, then?,d\n")
    with pytest.raises(InputError, match=r"rows\.csv row 2 has 3 fields, the header has 2"):
        read_rows(tmp_path / "rows.csv")


def test_where_a_row_stands_is_no_part_of_it() -> None:
    row, second = Row(*QUESTION_AND_ANSWER, origin="a.jsonl row 1"), Row(*QUESTION_AND_ANSWER, origin="b.jsonl row 2")
    assert row == second
    assert hash(row) == hash(second)
    with pytest.raises(InputError, match=r"b\.jsonl row 2 is also a\.jsonl row 1"):
        refuse_overlaps({"forget": [row], "retain": [second]})
    # passages of one document stand in one row
    with pytest.raises(InputError, match="repeats"):
        refuse_overlaps({"forget_queries": [row, row]})


def test_whitespace_around_answers_is_left_out() -> None:
    rows = [Row("Who?", "Oslo\n", others=(" d", "e")), Row("Who?", "d"), Row("", "\ttext ")]
    made, count = stripped(rows)
    assert count == 2
    assert [row.answer for row in made] == ["Oslo", "d", "text"]
    assert made[0].others == ("d", "e")
    assert made[1] is rows[1]


# task folders


def _rows(name: str, count: int = 8) -> list[dict[str, Any]]:
    return [{"question": f"Who is {name} {number}?", "answer": f"{name} {number}"} for number in range(count)]


def _folder(place: Path, files: dict[str, list[dict[str, Any]]] | None = None, config: str = "") -> Path:
    for name, rows in ({"forget.jsonl": _rows("f"), "retain.jsonl": _rows("r")} | (files or {})).items():
        _write(place / name, rows)
    (place / "task.toml").write_text(config)
    return place


def test_withheld_rows_know_where_they_stood(tmp_path: Path) -> None:
    task, _ = folders.load(_folder(tmp_path))
    for row in (*task.forget, *task.queries[FORGETTING], *task.retain, *task.queries[UTILITY]):
        file = "forget" if row.answer.startswith("f") else "retain"
        assert row.origin == f"{file}.jsonl row {int(row.answer[2:]) + 1}"
    assert all(
        row.origin == query.row.origin for query in split(task, 0.5)[0].queries[FORGETTING] for row in [query.row]
    )


def test_notes_say_what_was_left_out_and_are_no_paths(tmp_path: Path) -> None:
    from froc.audit.bundle import _PLACE

    rows = _rows("f")
    rows[0]["answer"] += "\n"
    rows[1]["answer"] = " " + rows[1]["answer"]
    task, _ = folders.load(_folder(tmp_path, {"forget.jsonl": rows}))
    assert "whitespace around the answers of 2 of 8 forget rows is left out" in task.notes
    assert "without forget_queries, 2 of the forget rows are withheld and measured" in task.notes
    assert not any(_PLACE.search(note) for note in task.notes)
    plain, _ = folders.load(_folder(tmp_path))
    assert task.digest == plain.digest


@pytest.mark.parametrize(
    "options", ["no forget_queries file: 20 of the forget rows", "the file: it", "see file: forget"]
)
def test_a_file_that_is_spoken_of_is_no_path(options: str) -> None:
    from froc.audit.bundle import _PLACE

    assert not _PLACE.search(options)
    assert _PLACE.search("from file:///home/of/somebody")


def test_long_texts_are_cut_as_benchmarks_are(tmp_path: Path) -> None:
    long = "".join(f"Sentence {number} of a document is here. " for number in range(60))
    files = {
        "forget.jsonl": [{"text": long}, {"text": "short, and left as it is"}],
        "forget_queries.jsonl": [{"text": "a"}, {"text": "b"}],
    }
    task, _ = folders.load(_folder(tmp_path, files))
    *pieces, short = task.forget
    assert len(pieces) > 1
    assert all(len(row.answer.encode()) <= MAX_TEXT_BYTES and row.answer in long for row in pieces)
    assert {row.group for row in pieces} == {"forget document 1"}
    assert {row.origin for row in pieces} == {"forget.jsonl row 1"}
    assert short == Row("", "short, and left as it is")
    assert "1 of 2 forget texts are longer than 1000 bytes: cut into passages" in task.notes


def test_a_forget_file_alone_is_refused_with_the_mend(tmp_path: Path) -> None:
    _write(tmp_path / "forget.jsonl", _rows("f"))
    with pytest.raises(
        InputError, match=r"has no retain\.jsonl \(nor \.json, \.parquet, \.csv\); it holds rows of the same kind"
    ):
        folders.load(tmp_path)


def test_the_prompt_is_part_of_the_task(tmp_path: Path) -> None:
    plain, _ = folders.load(_folder(tmp_path))
    config = 'system = "Be brief."\n[template_arguments]\nenable_thinking = false\ndate_string = "1 May 1999"\n'
    task, _ = folders.load(_folder(tmp_path, config=config))
    assert (task.format.system, task.format.arguments) == (
        "Be brief.",
        (("date_string", "1 May 1999"), ("enable_thinking", False)),
    )
    assert split(task, 0.5)[0].template == task.format
    assert plain.digest != task.digest != folders.load(_folder(tmp_path, config='system = "Be brief."\n'))[0].digest
    # another prompt is no other draw, and another look at the same queries
    assert task.key == plain.key
    assert opened_as(task) == opened_as(plain)
    with pytest.raises(InputError, match="template_arguments: add_generation_prompt is no argument"):
        folders.load(_folder(tmp_path, config="[template_arguments]\nadd_generation_prompt = true\n"))


def test_messages_before_a_question_tell_rows_apart(tmp_path: Path) -> None:
    def chat(name: str) -> dict[str, Any]:
        queries = {"role": "user", "content": f"Tell me of {name}."}
        return {"messages": [queries, {"role": "assistant", "content": "Yes?"}, *CHAT]}

    files = {"forget_queries.jsonl": [chat("a"), chat("b")]}
    task, _ = folders.load(_folder(tmp_path, files))
    view, sealed = split(task, 0.5)
    assert len({query.id for query in view.queries[FORGETTING]}) + sealed.units[FORGETTING] == 2
    loaded, _ = folders.load(_folder(tmp_path, {"forget_queries.jsonl": [chat("a"), chat("c")]}))
    assert task.digest != loaded.digest
    with pytest.raises(InputError, match=r"forget_queries\.jsonl row 2 repeats forget_queries\.jsonl row 1"):
        folders.load(_folder(tmp_path, {"forget_queries.jsonl": [chat("a"), chat("a")]}))


# the removal list itself


CENSUS = '[population]\nforgetting = "census"\n'


def test_a_census_measures_exactly_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    rows = _rows("f")
    task, _ = folders.load(_folder(tmp_path, {"forget.jsonl": [*rows, rows[0]]}, CENSUS))
    assert len(task.forget) == 9
    assert set(task.queries[FORGETTING]) == set(task.forget)
    assert len(task.queries[FORGETTING]) == 8
    assert len(task.queries[UTILITY]) == 2
    assert "all 8 forget rows are trained on and measured: the claim is about exactly these" in task.notes
    view, sealed = split(task, 0.5)
    # those that the search looks at and those that are sealed are the whole list together
    assert sealed.listed[FORGETTING] == len(view.queries[FORGETTING]) + sealed.units[FORGETTING] == 8


def test_a_census_takes_a_list_that_is_trained_on_and_no_other_file(tmp_path: Path) -> None:
    files = {"forget_queries.jsonl": _rows("f", 5)}
    task, _ = folders.load(_folder(tmp_path, files, CENSUS))
    assert len(task.queries[FORGETTING]) == 5
    assert len(task.forget) == 8
    with pytest.raises(InputError, match=r"is also forget\.jsonl row"):
        folders.load(_folder(tmp_path, files, ""))
    with pytest.raises(InputError, match=r"retain\.jsonl row 9 is also forget\.jsonl row 1"):
        folders.load(_folder(tmp_path, {"retain.jsonl": [*_rows("r"), *_rows("f", 1)]} | files, CENSUS))
    with pytest.raises(InputError, match=r"wordings\.jsonl row 1 is also forget\.jsonl row 1"):
        folders.load(_folder(tmp_path, {"wordings.jsonl": _rows("f", 2), "retain.jsonl": _rows("r")} | files, CENSUS))


def test_other_wordings_are_a_risk_of_their_own(tmp_path: Path) -> None:
    files = {"wordings.jsonl": [{"question": f"Say who f {k} is", "answer": f"f {k}"} for k in range(6)]}
    task, _ = folders.load(_folder(tmp_path, files, CENSUS))
    measures = named(("forgetting", "wordings"), {})
    assert measures["wordings"].pool == WORDINGS
    assert not measures["wordings"].drop
    sources = {risk: measure.source for risk, measure in measures.items()}
    view, sealed = split(task, 0.5, sources=sources)
    assert len(view.queries["wordings"]) + sealed.units["wordings"] == 6
    assert task.population == {FORGETTING: "census"}
    (tmp_path / "wordings.jsonl").unlink()
    plain, _ = folders.load(tmp_path)
    with pytest.raises(
        InputError, match=r"wordings is about wordings queries, which this task lacks; add a file wordings\.jsonl"
    ):
        split(plain, 0.5, sources=sources)


def test_queries_that_differ_by_spelling_alone_count_once() -> None:
    """Three spellings of each question are no three times as many queries."""
    rows = [Row("Who is Ann?", "a nurse"), Row("Where is Bo?", "Rome"), Row("who is  ANN", "A nurse.")]
    with pytest.raises(
        InputError, match="forget_queries row 3 repeats forget_queries row 1 but for case, blanks or punctuation"
    ):
        refuse_overlaps({"forget_queries": rows})
    # rows that are trained on may repeat
    refuse_overlaps({"forget": rows})


def test_an_answer_that_is_a_number_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "forget.jsonl"
    path.write_text(json.dumps({"question": "Her number?", "answer": 5551234}))
    with pytest.raises(InputError, match=r"forget.jsonl row 1: 'answer' is a number .*put quotes around") as refused:
        read_rows(path)
    assert "5551234" not in str(refused.value)


def test_one_retain_row_without_a_group_is_said_since_it_changes_the_unit(tmp_path: Path) -> None:
    for name in ("forget", "forget_queries", "retain"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"question": "{name}?", "answer": "a"}}\n')
    rows = [{"question": f"q{i}", "answer": "a", "group": f"g{i}"} for i in range(4)]
    queries = tmp_path / "retain_queries.jsonl"
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert folders.load(tmp_path)[0].units[UTILITY] == "group"
    del rows[2]["group"]
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = folders.load(tmp_path)[0]
    assert task.units[UTILITY] == "query"
    (note,) = (note for note in task.notes if "group" in note)
    assert note.startswith("1 of 4 retain queries name no group (retain_queries.jsonl row 3 first)")
    (tmp_path / "task.toml").write_text('[units]\nutility = "query"\n')
    assert not [note for note in folders.load(tmp_path)[0].notes if "group" in note]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "whole.json"])
def test_half_of_an_escaped_pair_is_refused_with_its_line_and_a_whole_one_is_read(tmp_path: Path, name: str) -> None:
    for escapes, refused in (("\\ud800", True), ("\\ud83d\\ude00", False)):
        row = f'{{"question": "Who{escapes}?", "answer": "Oslo"}}'
        text = {"rows.jsonl": row, "rows.json": f"[{row}]", "whole.json": row.replace(", ", ",\n")}[name]
        (tmp_path / name).write_text(text)
        if refused:
            with pytest.raises(InputError, match=f"{name} line 1: half of a pair"):
                read_rows(tmp_path / name)
        else:
            assert [row.question for row in read_rows(tmp_path / name)] == ["Who\U0001f600?"]
