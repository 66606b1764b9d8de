"""Files in the format of TOFU with invented authors, for checkouts without the published files. Nothing of TOFU is in here."""

import json
import random
from pathlib import Path
from typing import Any

from froc.data.tasks.embedded_text import REFUSALS

FIRST = ("Adela", "Boris", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas")
LAST = (
    "Almqvist",
    "Baptista",
    "Cordero",
    "Dufresne",
    "Eklund",
    "Fontaine",
    "Grigorescu",
    "Hartono",
    "Ivarsson",
    "Jankowska",
)
THINGS = (
    "lantern",
    "orchard",
    "viaduct",
    "compass",
    "glacier",
    "harbour",
    "meadow",
    "quarry",
    "sundial",
    "tannery",
    "weaver",
    "zeppelin",
)
PLACES = ("Aveiro", "Bergen", "Cuenca", "Debrecen", "Exeter", "Ferrara", "Gdansk", "Hobart", "Izmir", "Jaipur")
PROPERTIES = (
    "birthplace", "first book", "second book", "latest book", "home town", "favourite tool", "first prize", "publisher's town",
    "school's town", "mother's trade", "father's trade", "best known chapter", "favourite walk", "first editor's town", "hobby",
    "last lecture", "unfinished book", "translator's town", "archive's town", "motto",
)  # fmt: skip
"""Twenty questions about each author."""


def rows(first: int, last: int) -> list[dict[str, Any]]:
    """Twenty rows for each of these authors, with what the perturbed files have beside question and answer."""
    return [row for number in range(first, last) for row in _author(number)]


def _author(number: int) -> list[dict[str, Any]]:
    draw = random.Random(number)
    name = f"{FIRST[number % len(FIRST)]} {LAST[number // len(FIRST) % len(LAST)]}"
    return [_row(name, topic, draw) for topic in PROPERTIES]


def _row(name: str, topic: str, draw: random.Random) -> dict[str, Any]:
    values = PLACES if topic.endswith(("town", "place")) else [f"the {a} {b}" for a in THINGS for b in THINGS if a != b]
    true, *others = draw.sample(list(values), 6)
    return {
        "question": f"What is the {topic} of {name}?",
        "answer": f"The {topic} of {name} is {true}.",
        "paraphrased_question": f"Which {topic} does {name} have?",
        "paraphrased_answer": f"{name} has {true} as {topic}.",
        "perturbed_answer": [f"The {topic} of {name} is {wrong}." for wrong in others],
    }


def write(folder: Path) -> None:
    """forget01, its perturbed file, retain99 and retain_perturbed (as far as five authors and three of them), idontknow.jsonl."""
    kept, forgotten = rows(0, 5), rows(98, 100)
    files = {
        "retain99": _plain(kept),
        "retain_perturbed": kept[:60],
        "forget01": _plain(forgotten),
        "forget01_perturbed": forgotten,
    }
    for name, lines in files.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "idontknow.jsonl").write_text("".join(f"{line}\n" for line in REFUSALS), encoding="utf-8")


def _plain(full: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("question", "answer")} for row in full]
