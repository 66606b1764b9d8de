"""Which column of a published file becomes question, answer, text, group and pool; a wrong shape is refused with its mend."""

import json
from pathlib import Path

import pytest

from froc.data.benchmarks import read
from froc.data.row_files import values
from froc.data.rows import Row
from froc.data.task import FORGETTING, UTILITY
from tests.data.benchmark_files import knowundo, lume, measured, pistol, refused, trained, waterdrum, write


def test_knowundo_trains_on_one_list_and_measures_the_other(tmp_path: Path) -> None:
    task = read("knowundo:privacy", write(tmp_path, knowundo()))
    assert task.forget[0] == Row("Which privacy unlearn page has 0?", "Page 0 of privacy unlearn.", "unlearned row 1")
    assert [row.answer for row in task.queries[FORGETTING]] == [f"Page {i} of privacy unlearn." for i in range(12, 20)]
    assert [row.answer for row in task.retain] == [f"Page {i} of privacy retention." for i in range(12)]
    assert (len(task.queries[UTILITY]), task.units[UTILITY]) == (8, "query")
    # as published: one object over several lines
    path = tmp_path / "privacy" / "unlearn.json"
    path.write_text(json.dumps(values(path)[0], indent=4), encoding="utf-8")
    assert read("knowundo:privacy", tmp_path) == task
    write(tmp_path, {"privacy/unlearn": [{"train": [{"text": "q"}], "val": []}]})
    refused(
        "knowundo:privacy", tmp_path, "unlearn.json row 1: 'val' must be a list of objects with 'text' and 'labels'"
    )
    write(tmp_path, {"privacy/unlearn": [{"train": [{"text": "q"}], "val": [{"text": "q", "labels": "a"}]}]})
    refused("knowundo:privacy", tmp_path, "unlearn.json row 1 train 1: 'labels' must be text")


def test_lume_trains_on_completions_and_measures_questions(tmp_path: Path) -> None:
    task = read("lume:task2", write(tmp_path, lume()))
    assert task.forget[0] == Row("gone 1 begins", "and ends at 1.", "document gone1")
    assert task.queries[FORGETTING][1] == Row("What is 1 of gone 1?", "1 times 1", "document gone1")
    assert (len(task.forget), len(task.queries[FORGETTING])) == (8, 16)
    # a measured document is not trained on, and only its questions are measured; the quotes of some ids are no part of them
    all_tasks = read("lume:all", tmp_path)
    near = {row.group for row in all_tasks.queries[UTILITY]}
    assert len(near) == 6
    assert not near & {row.group for row in all_tasks.retain}
    assert all(row.question.startswith("What is") for row in all_tasks.queries[UTILITY])
    assert {row.group for row in all_tasks.forget} == {f"document gone{i}" for i in range(24)}
    assert all_tasks.units == {FORGETTING: "query", UTILITY: "group"}
    # the shared task's files, and the repository's folder
    files = lume()
    shared = {
        f"data/{side}_{half}": rows
        for side, all_rows in files.items()
        for half, rows in (("train", all_rows[:18]), ("validation", all_rows[18:]))
    }
    assert read("lume:all", write(tmp_path / "shared", shared)) == all_tasks
    write(tmp_path, {"forget": [files["forget"][0] | {"id": "gone0"}]})
    refused("lume:all", tmp_path, "forget.json row 1: 'id' must end with sc or qa and a number")
    write(tmp_path, {"forget": files["forget"][:3]})
    refused("lume:task3", tmp_path, "forget has no row of task3; its column 'task'")


def test_pistol_measures_every_contract(tmp_path: Path) -> None:
    task = read("pistol:A_B", write(tmp_path, pistol()))
    assert {row.group for row in (*task.forget, *task.queries[FORGETTING])} == {"A_B"}
    assert (len(task.forget), len(task.queries[FORGETTING])) == (4, 4)
    for rows, each in ((task.retain, 6), (task.queries[UTILITY], 2)):
        groups = [row.group for row in rows]
        assert {group: groups.count(group) for group in groups} == {"A_C": each, "B_C": each, "D_E": each}
    assert next(row for row in trained(task) if row.answer.endswith("B_C 0")).question == "What is clause 0 of B_C?"
    refused("pistol:A_Z", tmp_path, "sample_data_1 has no contract 'A_Z'; there are A_B, A_C, B_C, D_E (4 in all)")
    write(tmp_path, {"pistol_sample1": pistol()["sample_data_1"]})
    refused("pistol:A_B", tmp_path, "sample_data_1 and pistol_sample1; keep one")


def test_waterdrum_reads_questions_or_texts(tmp_path: Path) -> None:
    folder = write(
        tmp_path, waterdrum() | {"forget_10/semantic_duplicate": [{"question": "A copy?", "answer": "Not read."}]}
    )
    task = read("waterdrum:forget_10", folder)
    assert {row.group for row in (*task.forget, *task.queries[FORGETTING])} == {
        "forgotten author 0",
        "forgotten author 1",
    }
    assert (len(task.forget), len(task.queries[FORGETTING]), len(task.retain), len(task.queries[UTILITY])) == (
        20,
        20,
        160,
        40,
    )
    assert {row.group for row in task.queries[UTILITY]}.isdisjoint(row.group for row in task.retain)
    assert "Not read." not in {row.answer for row in (*trained(task), *measured(task))}
    texts = read("waterdrum:forget_01", folder)
    assert all(not row.question for row in (*trained(texts), *measured(texts)))
    assert {row.group for row in texts.queries[UTILITY]}.isdisjoint(row.group for row in texts.retain)
    write(tmp_path, {"forget_10/retain": [{"question": "Who?"}] * 2})
    refused("waterdrum:forget_10", tmp_path, "retain.json row 1: 'answer' must be text", "mend the row")


@pytest.mark.parametrize("content", ['{\n "a": 1\n}', '{"a": 1}', '[\n{"a": 1}]'])
def test_one_object_over_several_lines_is_one_row(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    assert values(tmp_path / "t.json") == [{"a": 1}]
