"""Text benchmarks (TOFU, WMDP, RWKU, MUSE): which rows are trained on and measured, and how long texts become passages."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.data.benchmarks import _files, assemble, read
from froc.data.passages import MAX_TEXT_BYTES, MIN_TEXT_CHARACTERS, pieces
from froc.data.row_files import values as records
from froc.data.rows import Row, refuse_overlaps
from froc.data.task import FORGETTING, UTILITY
from froc.errors import InputError
from froc.measuring.metric import Metric
from froc.plugins import make
from tests.data.benchmark_files import MADE, lines, muse, refused, rwku, text, tofu, trained, wmdp, write

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tofu"


def test_a_row_counts_once() -> None:
    row, second = Row("q", "a", "g"), Row("r", "b", "g")
    queries = {FORGETTING: [row, row, Row("s", "c")], UTILITY: [second]}
    task = assemble(
        "x", [row, second, Row("t", "d")], [Row("t", "d"), Row("u", "e"), Row("u", "e")], queries, utility="query"
    )
    assert [len(rows) for rows in task.queries.values()] == [2, 1]
    assert task.forget == (Row("t", "d"),)
    assert task.retain == (Row("u", "e"), Row("u", "e"))
    assert len(task.notes) == 3
    with pytest.raises(InputError, match="no retain rows are left"):
        assemble("x", [Row("t", "d")], [row], queries, utility="query")


def test_pieces_keep_every_word_in_order() -> None:
    for whole in (text("long", 200), "wörter " * 900, "\n\n".join([text(f"part{i}", 12) for i in range(9)])):
        cut = pieces(whole)
        assert len(cut) > 3
        assert all(len(piece) >= MIN_TEXT_CHARACTERS and len(piece.encode()) <= MAX_TEXT_BYTES for piece in cut)
        assert " ".join(cut).split() == whole.split()
    assert all(piece.endswith(".") for piece in pieces(text("long", 200)))
    # no place to cut: three bytes a letter, and none is lost
    assert "".join(pieces("漢" * 1998)) == "漢" * 1998
    assert pieces("Too short.") == []


@pytest.mark.parametrize("shape", [lines, json.dumps])
def test_only_the_first_documents_are_read(tmp_path: Path, shape: Callable[[list[Any]], str]) -> None:
    path = tmp_path / "t.json"
    path.write_text(shape([{"text": f"{i}"} for i in range(9)]), encoding="utf-8")
    assert [row["text"] for row in records(path, 2)] == ["0", "1"]
    # what stands after them is not looked at
    if shape is lines:
        path.write_text(path.read_text(encoding="utf-8") + "{", encoding="utf-8")
        assert len(records(path, 9)) == 9
    pl.DataFrame({"text": ["a", "b", "c"]}).write_parquet(tmp_path / "p-00000-of-00002.parquet")
    pl.DataFrame({"text": ["d"]}).write_parquet(tmp_path / "p-00001-of-00002.parquet")
    assert [text for text, _ in _files.texts(tmp_path, "p", most=2)] == ["a", "b"]
    assert [text for text, _ in _files.texts(tmp_path, "p")] == ["a", "b", "c", "d"]


def test_tofu_queries(tmp_path: Path) -> None:
    files = tofu()
    folder = write(tmp_path, files)
    (folder / "idontknow.jsonl").write_text("No idea.\nAsk another.\n", encoding="utf-8")
    task = read("tofu:forget01", folder)
    assert task.queries[FORGETTING][0] == Row(
        "Tell fact 60.", "It is 60.", "author 3", ("No.", "Yes."), ("What is fact 60?",), "60 it is."
    )
    # the rows whose paraphrases measure utility are not trained on
    assert [row.group for row in task.retain] == ["author 2"] * 20
    assert {row.group for row in task.queries[UTILITY]} == {"author 0", "author 1"}
    assert task.refusals == ("No idea.", "Ask another.")
    assert len(task.holdout) == 40
    assert (task.units[FORGETTING], task.units[UTILITY]) == ("query", "group")
    write(folder, {"retain_perturbed": files["retain_perturbed"][1:]})
    refused("tofu:forget01", folder, "retain_perturbed row 1", "retain99 row 1")
    same = [row | {"paraphrased_question": row["question"]} for row in files["forget01_perturbed"]]
    write(folder, {"retain_perturbed": files["retain_perturbed"], "forget01_perturbed": same})
    refused("tofu:forget01", folder, "forget01_perturbed row 1", "paraphrased_question")


def test_wmdp_options_are_read_by_multiple_choice(tmp_path: Path) -> None:
    files = wmdp()
    files["bio_questions"].append({"question": "long " * 900, "choices": ["a", "b"], "answer": 0})
    task = read("wmdp:bio", write(tmp_path, files))
    for rows in task.queries.values():
        assert make(Metric, "multiple_choice").fits(rows) == ""
        assert rows[1].answer == "b1"
        assert rows[1].others == ("a1", "c1", "d1")
    assert task.queries[UTILITY][1].group == "s1"
    assert any(note.startswith("1 of 31 questions of bio_questions") for note in task.notes)
    # the start of each document
    assert [sum(row.group == f"document {i}" for row in task.forget) for i in (1, 2, 3, 4)] == [3] * 4
    assert task.forget[0].answer.startswith("Sentence 0 of virus0")
    for bad, word in (
        ({"answer": 4}, "place in 'choices'"),
        ({"choices": ["a", 1]}, "list of texts"),
        ({"answer": True}, "place"),
    ):
        write(tmp_path, {"mmlu": [files["mmlu"][0] | bad]})
        refused("wmdp:bio", tmp_path, "mmlu.json row 1", word)


def test_rwku_people(tmp_path: Path) -> None:
    folder = write(tmp_path, rwku())
    everybody, ada = read("rwku:all", folder), read("rwku:Ada Byron", folder)
    assert {row.group for row in everybody.forget} == {"Ada Byron", "Carl Gauss"}
    assert {row.group for row in ada.forget} == {row.group for row in ada.queries[FORGETTING]} == {"Ada Byron"}
    assert (everybody.units[UTILITY], ada.units[UTILITY]) == ("group", "query")
    assert (len(everybody.queries[FORGETTING]), len(ada.queries[FORGETTING])) == (36, 18)
    # a neighbour who is to be forgotten is no neighbour to be kept
    assert (len(everybody.queries[UTILITY]), len(read("rwku:Carl_Gauss", folder).queries[UTILITY])) == (22, 12)
    assert read("rwku:Ada Byron", folder / "Target") == ada
    place = folder / "Target" / "1_Ada_Byron"
    (place / "passage.json").rename(place / "forget_mia.json")
    again = read("rwku:Ada_Byron", folder)
    assert again.forget == ada.forget
    assert again.notes == ("1_Ada_Byron has no passage: forget_mia is trained on",)
    refused("rwku:Nobody", folder, "0 folders for 'Nobody'", "1_Ada_Byron")


def test_muse_parts(tmp_path: Path) -> None:
    folder = write(tmp_path, muse())
    queries, quoted, private = (read(f"muse:{part}", folder) for part in MADE["muse"][1])
    assert queries.template.startswith("Question: Which (sign)?\nAnswer: A brace.\n\nQuestion: {question}")
    assert queries.template.count("{question}") == queries.template.count("{answer}") == 1
    assert all(row.question for row in queries.queries[FORGETTING])
    # a passage stands around the end of its prompt, word for word
    first = muse()["news/verbmem/forget"][0]
    row = quoted.queries[FORGETTING][0]
    assert row.question == ""
    assert row.answer in f"{first['prompt']} {first['gt']}"
    assert first["prompt"].endswith(row.answer[: len(row.answer) // 2])
    # what is quoted is not trained on: the quoted article loses rows, the others keep theirs
    gone = [sum(row.group == "document 1" for row in task.forget) for task in (queries, quoted)]
    assert gone[1] < gone[0]
    assert sum(row.group == "document 2" for row in quoted.forget) == sum(
        row.group == "document 2" for row in queries.forget
    )
    assert len(private.queries[FORGETTING]) == len(private.holdout) == 5
    assert make(Metric, "membership").bank == "holdout"
    starts = [row.answer[:60] for row in private.queries[FORGETTING]]
    assert not any(start in row.answer for start in starts for row in private.forget)
    # the corpus alone, and as one text
    (folder / "news" / "raw" / "forget.json").unlink()
    (folder / "news" / "raw" / "forget.txt").write_text(" ".join(text(f"event{i}") for i in range(6)), encoding="utf-8")
    whole = read("muse:news", folder / "news")
    assert {row.group for row in whole.forget} == {"document 1"}
    assert whole.queries == queries.queries


@pytest.mark.skipif(not SHARED.is_dir(), reason="the TOFU files are not at hand")
@pytest.mark.parametrize(("part", "rows", "kept"), [("01", 40, 3960), ("05", 200, 3800), ("10", 400, 3600)])
def test_the_published_tofu_files(part: str, rows: int, kept: int) -> None:
    task = read(f"tofu:forget{part}", SHARED)
    queries, near = task.queries[FORGETTING], task.queries[UTILITY]
    assert len(task.forget) == len(queries) == len(task.holdout) == rows
    assert (len(near), len(task.retain)) == (400, kept - 400)
    # blocks of twenty: authors 0 to 199 in order, none on two sides
    for values in (task.forget, task.retain, queries, near):
        assert {values.count(group) for values in [[row.group for row in values]] for group in set(values)} == {20}
    authors = [{row.group for row in values} for values in (near, task.retain, task.forget)]
    assert [len(values) for values in authors] == [20, kept // 20 - 20, rows // 20]
    assert set.union(*authors) == {f"author {i}" for i in range(200)}
    refuse_overlaps(
        {"forget": task.forget, "retain": task.retain, "asked queries": [*queries, *near], "holdout": task.holdout}
    )
    # a query asks in words that no trained row has, for the answer that its own row has
    assert not {row.question for row in (*queries, *near)} & {row.question for row in trained(task)}
    assert [row.answer for row in queries] == [row.answer for row in task.forget]
    assert all(
        len(row.others) == 5 and row.restated and row.paraphrases[0] != row.question for row in (*queries, *near)
    )
    full = json.loads(lines_of(SHARED / "full.json"))
    assert [row["question"] for row in full[-rows:]] == [row.question for row in task.forget]
    assert replace(task.forget[0], group="") == Row(full[-rows]["question"], full[-rows]["answer"])
    assert len(task.refusals) == 100


def lines_of(path: Path) -> str:
    """JSON lines as an array."""
    return "[" + ",".join(path.read_text(encoding="utf-8").splitlines()) + "]"
