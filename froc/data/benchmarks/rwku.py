"""RWKU."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from froc.data.benchmarks import BenchmarkReader, assemble
from froc.data.benchmarks._files import field, objects, paths, plain, texts
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError

LEVELS = ("forget_level1", "forget_level2", "forget_level3")
NEIGHBOURS = ("neighbor_level1", "neighbor_level2")
CLOZE = "Fill in the blank in this sentence.\n"
BRIEFLY = "Answer this question briefly.\n"
TEMPLATE = "{question}\nAnswer: {answer}"


@dataclass(frozen=True)
class Rwku(BenchmarkReader):
    """RWKU: what a model knows about famous people, forgotten from passages and measured by probes (2406.10890).

    Parts: a person (a folder's name, with or without its number: 1_Stephen_King, Stephen_King, "Stephen King"), or all people
    in the folder. Trained on: passage, or the member texts forget_mia where a person has no passage; to be kept: retain_mia,
    for the benchmark has no retain corpus of its own; both cut into rows of plain text. Measured: forget_level1 (cloze),
    forget_level2 (questions), forget_level3 (nine kinds of adversarial prompts); utility on neighbor_level1 and 2. The group
    is the person, of a neighbour's probe the neighbour. Units: queries for one person; for all, utility by group.

    Read in the authors' code: folders Target/NUMBER_NAME (blanks as _), names of files, columns `query`, `answer`, `level`,
    `type` and `text`. Our reading: the column `neighbor` (else `subject`); a probe about a neighbour who is to be forgotten
    too is left out. forget_mia is not measured where passages are trained on: its texts are about the same person and may
    be the same. There is no holdout: retain_mia are texts that the model has seen. The instructions before a probe are in
    our words, and an answer may be longer than the authors' 30 tokens.
    """

    parts: ClassVar[tuple[str, ...]] = ("all", "SUBJECT")
    files: ClassVar[str] = (
        "Target/NUMBER_NAME/ with passage (or forget_mia), retain_mia, forget_level1, forget_level2, forget_level3, "
        "neighbor_level1, neighbor_level2"
    )
    origin: ClassVar[str] = "the dataset jinzhuoran/RWKU, folder Target"
    paper: ClassVar[str] = "2406.10890"

    def load(self, folder: Path, part: str, split_seed: int = 0) -> Task:
        """The task; InputError names the people near, where there is no such one."""
        places = _places(folder, part)
        people = [_name(place) for place in places]
        notes: list[str] = []
        forget = [row for place in places for row in _passages(place, notes)]
        retain = [row for place in places for row in plain(texts(place, "retain_mia"), f"kept with {_name(place)}")]
        probes = [row for place in places for file in LEVELS for row in _probes(place, file, _name(place))]
        near = [row for place in places for file in NEIGHBOURS for row in _probes(place, file, None)]
        kept = [row for row in near if row.group not in people]
        if len(kept) < len(near):
            notes.append(f"{len(near) - len(kept)} neighbour probes are left out: the neighbour is to be forgotten too")
        return assemble(
            f"rwku-{part.replace(' ', '_')}",
            forget,
            retain,
            {FORGETTING: probes, UTILITY: kept},
            utility="query" if len(places) == 1 else "group",
            template=TEMPLATE,
            split_seed=split_seed,
            notes=notes,
        )


def _places(folder: Path, part: str) -> list[Path]:
    root = folder / "Target" if (folder / "Target").is_dir() else folder
    every = sorted(place for place in root.iterdir() if place.is_dir() and paths(place, LEVELS[0]))
    if not every:
        raise InputError(f"{root} has no folder with {LEVELS[0]}.json; give the folder that holds Target")
    wanted = part.replace("_", " ")
    matches = [place for place in every if part == "all" or wanted in (place.name.replace("_", " "), _name(place))]
    if len(matches) != 1 and part != "all":
        there = ", ".join(place.name for place in every[:3])
        raise InputError(f"{root} has {len(matches)} folders for {part!r}; name one of its {len(every)} ({there}, ...)")
    return matches


def _name(place: Path) -> str:
    """The person of a folder: 1_Stephen_King -> Stephen King."""
    number, _, rest = place.name.partition("_")
    return (rest if number.isdigit() and rest else place.name).replace("_", " ")


def _passages(place: Path, notes: list[str]) -> tuple[Row, ...]:
    if not paths(place, "passage"):
        notes.append(f"{place.name} has no passage: forget_mia is trained on")
    documents = texts(place, "passage", "forget_mia")
    return tuple(replace(row, group=_name(place), origin=f"{place.name}/{row.origin}") for row in plain(documents, ""))


def _probes(place: Path, file: str, person: str | None) -> list[Row]:
    return [_probe(record, where, file, person, place) for where, record in objects(place, file)]


def _probe(record: dict[str, Any], where: str, file: str, person: str | None, place: Path) -> Row:
    where = f"{place.name}/{where}"
    ask = CLOZE if file.endswith("level1") else BRIEFLY
    about = person or str(record.get("neighbor") or record.get("subject") or _name(place))
    return Row(ask + field(record, "query", where), field(record, "answer", where), about, origin=where)
