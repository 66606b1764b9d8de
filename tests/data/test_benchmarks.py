"""Every layout by name: small folders in the shape of the authors' files become a task; what is bad is one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.data.benchmarks import BenchmarkReader, _files, assemble, named, read
from froc.data.passages import MAX_TEXT_BYTES, MIN_TEXT_CHARACTERS, pieces
from froc.data.row_files import values as records
from froc.data.rows import Row, refuse_overlaps
from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY, Task
from froc.errors import InputError
from froc.measuring.metric import Metric
from froc.plugins import make, names

Files = dict[str, list[Any]]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tofu"


def text(label: str, sentences: int = 40) -> str:
    """A document of its own words: sentence after sentence."""
    return " ".join(
        f"Sentence {i} of {label} says that {label} has item {i * 7} in box {label}{i}." for i in range(sentences)
    )


def tofu() -> Files:
    """Four authors: two with paraphrases to be kept, one to be trained on, one to be forgotten."""
    full = [{"question": f"What is fact {i}?", "answer": f"It is {i}."} for i in range(80)]
    perturbed = [
        row | {"paraphrased_question": f"Tell fact {i}.", "paraphrased_answer": f"{i} it is.", "perturbed_answer": ["No.", "Yes."]}
        for i, row in enumerate(full)
    ]  # fmt: skip
    held = [{"question": f"Who is {i}?", "answer": f"Nobody {i}."} for i in range(40)]
    return {
        "forget01": full[60:], "forget01_perturbed": perturbed[60:], "retain99": full[:60],
        "retain_perturbed": perturbed[:40], "holdout01": held,
    }  # fmt: skip


def wmdp() -> Files:
    """Documents of a few kilobytes, questions with the answer's place."""
    ask = [
        {"question": f"Which is {i}?", "choices": [f"a{i}", f"b{i}", f"c{i}", f"d{i}"], "answer": i % 4}
        for i in range(30)
    ]
    return {
        "bio_remove_dataset": [{"title": f"t{i}", "text": text(f"virus{i}", 90)} for i in range(4)],
        "bio-retain-corpus": [{"text": text(f"cell{i}")} for i in range(4)],
        "bio_questions": ask,
        "mmlu": [row | {"question": f"And {row['question']}", "subject": f"s{i % 3}"} for i, row in enumerate(ask)],
    }


def rwku() -> Files:
    """Two people; a neighbour of the second is the first."""
    files: Files = {}
    for number, person in enumerate(("Ada Byron", "Carl Gauss"), start=1):
        place = f"Target/{number}_{person.replace(' ', '_')}"
        files[f"{place}/passage"] = [{"text": text(person), "subject": person}]
        files[f"{place}/retain_mia"] = [{"text": text(f"other{number}{i}"), "subject": person} for i in range(2)]
        for level in (1, 2, 3):
            files[f"{place}/forget_level{level}"] = [
                {"query": f"{person} at {level} did {i} ___", "answer": f"deed {i}", "level": str(level), "type": "x", "subject": person}
                for i in range(6)
            ]  # fmt: skip
        for level in (1, 2):
            files[f"{place}/neighbor_level{level}"] = [
                {"query": f"near {person} {level} {i}", "answer": f"near {i}", "level": str(level), "subject": person,
                 "neighbor": "Ada Byron" if number == 2 and i == 0 else f"Friend {i} of {person}"}
                for i in range(6)
            ]  # fmt: skip
    return files


def muse() -> Files:
    """Articles; the first is quoted in both measured subsets."""
    documents = [text(f"event{i}") for i in range(6)]
    ask = [{"question": f"What happened at {i}?", "answer": f"thing {i}"} for i in range(20)]
    words = documents[0].split()
    return {
        "news/raw/forget": [{"text": document} for document in documents],
        "news/raw/retain1": [{"text": text(f"kept{i}")} for i in range(6)],
        "news/knowmem/forget_qa": ask,
        "news/knowmem/retain_qa": [row | {"question": f"Kept: {row['question']}"} for row in ask],
        "news/knowmem/retain_qa_icl": [{"question": "Which {sign}?", "answer": "A brace."}],
        "news/verbmem/forget": [
            {"prompt": " ".join(words[i : i + 150]), "gt": " ".join(words[i + 150 : i + 330])} for i in range(0, 60, 10)
        ],
        "news/privleak/forget": [{"text": document} for document in documents[:5]],
        "news/privleak/holdout": [{"text": text(f"unseen{i}")} for i in range(5)],
    }


def knowundo() -> Files:
    """One object with two lists a file."""

    def lists(side: str) -> list[Any]:
        rows = [{"text": f"Which {side} page has {i}?", "labels": f"Page {i} of {side}."} for i in range(20)]
        return [{"train": rows[:12], "val": rows[12:]}]

    return {
        f"{part}/{side}": lists(f"{part} {side}")
        for part in ("copyright", "privacy")
        for side in ("unlearn", "retention")
    }


def lume() -> Files:
    """Each document: a completion, and questions about it."""

    def side(name: str) -> list[Any]:
        rows = []
        for i in range(24):
            document = f'"{name}{i}"' if i % 3 == 0 else f"{name}{i}"
            task = f"Task{1 + i % 3}"
            rows.append(
                {"id": f"{document}sc1", "input": f"{name} {i} begins", "output": f"and ends at {i}.", "task": task}
            )
            rows += [
                {
                    "id": f"{document}qa{k}",
                    "input": f"What is {k} of {name} {i}?",
                    "output": f"{i} times {k}",
                    "task": task,
                }
                for k in range(2)
            ]
        return rows

    return {"forget": side("gone"), "retain": side("kept")}


def pistol() -> Files:
    """Contracts between companies."""
    edges = ("A_B", "A_C", "B_C", "D_E")
    return {
        "sample_data_1": [
            {"question": f"What is clause {i} of {edge}?", "answer": f"{edge} {i}", "edge": edge}
            for edge in edges
            for i in range(8)
        ]
    }


def waterdrum() -> Files:
    """Blocks of twenty questions, and documents."""
    ask = [{"question": f"Who wrote {i}?", "answer": f"Author of {i}."} for i in range(240)]
    return {
        "forget_10/forget": ask[:40], "forget_10/retain": ask[40:],
        "forget_01/forget": [{"text": text(f"paper{i}")} for i in range(3)],
        "forget_01/retain": [{"text": text(f"abstract{i}")} for i in range(8)],
    }  # fmt: skip


def _rated(user: str, item: str, **more: str) -> list[Any]:
    """Ten users who rated 24 items each, in the order of the items."""
    return [
        {user: u, item: (u + k) % 30, "rating": 1 + (u * k) % 5} | dict.fromkeys(more, 100 + k)
        for u in range(10)
        for k in range(24)
    ]


def movielens() -> Files:
    return {
        "ratings": _rated("userId", "movieId", timestamp=""),
        "movies": [{"movieId": i, "title": f"Film number {i} (1990)"} for i in range(30)],
    }


def goodreads() -> Files:
    rows = [row | {"rating": 5 - row["rating"]} for row in _rated("user_id", "book_id")]
    return {"ratings": rows, "books": [{"book_id": i, "title": f"Book number {i}"} for i in range(30)]}


MADE: dict[str, tuple[Callable[[], Files], tuple[str, ...]]] = {
    "tofu": (tofu, ("forget01",)),
    "wmdp": (wmdp, ("bio",)),
    "rwku": (rwku, ("all", "Carl Gauss", "1_Ada_Byron", "Ada_Byron")),
    "muse": (muse, ("news", "news-verbatim", "news-privacy")),
    "knowundo": (knowundo, ("copyright", "privacy")),
    "lume": (lume, ("task2", "all")),
    "pistol": (pistol, ("A_B", "A_B+D_E")),
    "waterdrum": (waterdrum, ("forget_10", "forget_01")),
    "movielens": (movielens, ("forget20",)),
    "goodreads": (goodreads, ("forget20",)),
}
PARTS = [(name, part) for name, (_, parts) in MADE.items() for part in parts]
OPTIONAL = ("holdout01", "news/knowmem/retain_qa_icl")


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, files: Files, shape: Callable[[list[Any]], str] = lines, suffix: str = ".json") -> Path:
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{suffix}").write_text(shape(rows), encoding="utf-8")
    return folder


def trained(task: Task) -> list[Row]:
    return [*task.forget, *task.retain]


def measured(task: Task) -> list[Row]:
    return [row for rows in task.queries.values() for row in rows]


def refused(name: str, folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_every_layout_is_made_here() -> None:
    assert set(MADE) == set(names(BenchmarkReader))


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_contract(name: str, part: str, tmp_path: Path) -> None:
    task = read(f"{name}:{part}", write(tmp_path, MADE[name][0]()), split_seed=3)
    assert task.split_seed == 3
    assert task.name.startswith(f"{name}-")
    files = {"forget": task.forget, "retain": task.retain, "holdout": task.holdout}
    refuse_overlaps(files | {f"{pool} queries": rows for pool, rows in task.queries.items()})
    assert not {(row.question, row.answer) for row in trained(task)} & {
        (row.question, row.answer) for row in measured(task)
    }
    assert all(row.group for row in trained(task))
    assert not {row.group for row in task.forget} & {row.group for row in task.retain}
    assert all(len(row.answer.encode()) <= MAX_TEXT_BYTES for row in trained(task))
    if task.units[UTILITY] == "group":
        assert all(row.group for row in task.queries[UTILITY])
    view, sealed = split(task, 0.2)
    assert view.forget == task.forget
    assert all(view.queries.values())
    assert min(sealed.units.values()) >= 1


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_lines_arrays_and_parquet_agree(name: str, part: str, tmp_path: Path) -> None:
    files = MADE[name][0]()
    losses_read = read(f"{name}:{part}", write(tmp_path / "lines", files))
    assert losses_read == read(f"{name}:{part}", write(tmp_path / "array", files, json.dumps))
    assert losses_read == read(f"{name}:{part}", write(tmp_path / "other", files, lines, ".jsonl"))
    for file, rows in files.items():
        place = tmp_path / "shards" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        for shard, values in enumerate((rows[:1], rows[1:])):
            if values:
                pl.DataFrame(values).write_parquet(f"{place}-{shard:05d}-of-00002.parquet")
    assert losses_read == read(f"{name}:{part}", tmp_path / "shards")


def _used(name: str, part: str) -> list[str]:
    """Files that a part needs."""
    kinds = {
        "news": ("verbmem", "privleak"),
        "news-verbatim": ("privleak", "forget_qa"),
        "news-privacy": ("verbmem", "forget_qa"),
    }
    second = {
        "Carl Gauss": "Ada",
        "1_Ada_Byron": "Carl",
        "Ada_Byron": "Carl",
        "copyright": "privacy",
        "privacy": "copyright",
        "forget_10": "forget_01",
        "forget_01": "forget_10",
    }.get(part, "nobody")
    idle = (*kinds.get(part, ()), second)
    return [file for file in MADE[name][0]() if file not in OPTIONAL and not any(word in file for word in idle)]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_missing_file_is_named(name: str, part: str, tmp_path: Path) -> None:
    folder = write(tmp_path, MADE[name][0]())
    for file in _used(name, part):
        path = folder / f"{file}.json"
        path.rename(folder / "away")
        if part != "all" or not file.endswith("forget_level1"):
            # a person's folder is known by its probes
            word = part if file.endswith("forget_level1") else path.stem
            refused(f"{name}:{part}", folder, word)
        (folder / "away").rename(path)


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_bad_row_is_named(name: str, part: str, tmp_path: Path) -> None:
    files = MADE[name][0]()
    folder = write(tmp_path, files)
    for file in _used(name, part):
        path = folder / f"{file}.json"
        good = path.read_text(encoding="utf-8")
        path.write_text(lines([{"wrong": "a secret"}, *files[file]]), encoding="utf-8")
        refused(f"{name}:{part}", folder, f"{path.name} row 1")
        path.write_text(good + "{\n", encoding="utf-8")
        refused(f"{name}:{part}", folder, f"{path.name} line {len(files[file]) + 1}")
        path.write_text("", encoding="utf-8")
        refused(f"{name}:{part}", folder, path.stem, "empty")
        path.write_text(good, encoding="utf-8")


@pytest.mark.parametrize("name", MADE)
def test_words_that_mean_nothing(name: str, tmp_path: Path) -> None:
    anything = {"rwku": "no folder with", "pistol": "has no sample_data_1"}
    refused(f"{name}:nothing", tmp_path, anything.get(name, f"{name} has no part 'nothing'"))
    refused(name, tmp_path, f"{name} has parts", "--data")
    refused(f"{name}x:nothing", tmp_path, f"did you mean {name!r}")
    part = MADE[name][1][0]
    refused(f"{name}:{part}", tmp_path / "none", "is no folder")
    with pytest.raises(InputError, match="add --data DIR"):
        read(f"{name}:{part}", None)
    assert named(name)
    assert named(f"{name}:{part}")
    assert not named(str(tmp_path))


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
    every, losses_read = read("rwku:all", folder), read("rwku:Ada Byron", folder)
    assert {row.group for row in every.forget} == {"Ada Byron", "Carl Gauss"}
    assert (
        {row.group for row in losses_read.forget}
        == {row.group for row in losses_read.queries[FORGETTING]}
        == {"Ada Byron"}
    )
    assert (every.units[UTILITY], losses_read.units[UTILITY]) == ("group", "query")
    assert (len(every.queries[FORGETTING]), len(losses_read.queries[FORGETTING])) == (36, 18)
    # a neighbour who is to be forgotten is no neighbour to be kept
    assert (len(every.queries[UTILITY]), len(read("rwku:Carl_Gauss", folder).queries[UTILITY])) == (22, 12)
    assert read("rwku:Ada Byron", folder / "Target") == losses_read
    place = folder / "Target" / "1_Ada_Byron"
    (place / "passage.json").rename(place / "forget_mia.json")
    again = read("rwku:Ada_Byron", folder)
    assert again.forget == losses_read.forget
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
