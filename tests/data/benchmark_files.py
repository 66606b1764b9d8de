"""Small folders in the shape of each benchmark's published files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from froc.data.benchmarks import read
from froc.data.rows import Row
from froc.data.task import Task
from froc.errors import InputError

Files = dict[str, list[Any]]


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
    """Ratings and titles, as the later releases name them."""
    return {
        "ratings": _rated("userId", "movieId", timestamp=""),
        "movies": [{"movieId": i, "title": f"Film number {i} (1990)"} for i in range(30)],
    }


def goodreads() -> Files:
    """Ratings, some of them 0 (not rated), and titles."""
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
