"""A task folder: `task.toml` beside the files `forget`, `retain`, `forget_queries`, `retain_queries`, `holdout`, `idk`.

Where the queries are missing, a random quarter of the rows is withheld from training and measured instead. Where forgetting
is a census, all forget rows are trained on and measured: the claim is about exactly these rows.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from froc import hashing
from froc.data.passages import MAX_TEXT_BYTES, cut
from froc.data.prompts import RESERVED
from froc.data.row_files import SUFFIXES
from froc.data.rows import Row, read_rows, refuse_overlaps, stripped
from froc.data.task import FORGETTING, UTILITY, WORDINGS, Task, Unit
from froc.errors import InputError

WITHHELD_FRACTION = 0.25
MISSING = {
    "forget": "it holds what shall be forgotten",
    "retain": "it holds rows of the same kind that the model shall keep: they are trained on, and its utility is measured on some",
    "forget_queries": "it holds what is asked about forgotten rows",
    "retain_queries": "it holds what is asked about kept rows",
    WORDINGS: "it holds other wordings of what is forgotten",
    "holdout": "it holds rows that the model has never seen",
}


class Units(BaseModel):
    """Sampling unit of each risk; unset means the default of DESIGN.md, item 10."""

    model_config = ConfigDict(extra="forbid")
    forgetting: Unit | None = None
    utility: Unit | None = None
    wordings: Unit | None = None


class Population(BaseModel):
    """What a claim about each risk is about; unset means `queries`."""

    model_config = ConfigDict(extra="forbid")
    forgetting: Literal["queries", "sample", "census"] | None = None
    utility: Literal["queries", "sample", "census"] | None = None


class Config(BaseModel):
    """`task.toml`."""

    model_config = ConfigDict(extra="forbid")
    name: str | None = None
    model: str | None = None
    retrained: str | None = None
    template: str = Task.template
    system: str = ""
    tokenizer_from_data: bool = False
    template_arguments: dict[str, StrictBool | StrictInt | StrictFloat | StrictStr] = {}
    split_seed: Annotated[int, Field(ge=0)] = 0
    units: Units = Units()
    population: Population = Population()
    space: dict[str, tuple[float, float]] = {}


def load(folder: Path, split_seed: int | None = None) -> tuple[Task, str | None]:
    """The task in `folder`, and the base model that its `task.toml` names (a path is relative to the folder).

    A retrained model is only checked where it is used (`froc.models.base.refuse_unlike`), so that it may be missing
    otherwise. InputError names file, row and remedy.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; --task names a folder with the files forget and retain")
    config = _config(folder / "task.toml")
    notes: list[str] = []
    files = {name: _rows(folder, name, notes) for name in ("forget", "retain")}
    census = config.population.forgetting == "census"
    for name in ("forget", "retain"):
        queries = f"{name}_queries"
        if _path(folder, queries) is not None:
            files[queries] = _rows(folder, queries, notes)
        elif name == "forget" and census:
            files[queries] = tuple({row.key: row for row in files[name]}.values())
            notes.append(
                f"all {len(files[queries])} forget rows are trained on and measured: the claim is about exactly these"
            )
        else:
            files[name], files[queries] = _withhold(files[name], name)
            notes.append(f"without {queries}, {len(files[queries])} of the {name} rows are withheld and measured")
    for name in (WORDINGS, "holdout"):
        if _path(folder, name) is not None:
            files[name] = _rows(folder, name, notes)
    _refuse_overlaps(files, census)
    wordings = {WORDINGS: files[WORDINGS]} if WORDINGS in files else {}
    seed = config.split_seed if split_seed is None else split_seed
    if config.units.utility is None:
        notes += _groupless_note(files["retain_queries"])
    task = Task(
        name=config.name or folder.resolve().name,
        forget=files["forget"],
        retain=files["retain"],
        queries={FORGETTING: files["forget_queries"], UTILITY: files["retain_queries"], **wordings},
        units={
            FORGETTING: config.units.forgetting or "query",
            UTILITY: config.units.utility or _default_unit(files["retain_queries"]),
            **dict.fromkeys(wordings, config.units.wordings or "query"),
        },
        refusals=refusals(folder, "idk.txt", "idk.jsonl"),
        holdout=files.get("holdout", ()),
        template=_template(config.template),
        system=config.system.strip(),
        arguments=_arguments(config.template_arguments),
        split_seed=seed,
        tokenizer_from_data=config.tokenizer_from_data,
        space=config.space,
        population=config.population.model_dump(exclude_none=True),
        notes=tuple(notes),
        retrained=None if config.retrained is None else str(folder / config.retrained),
    )
    return task, _model(folder, config.model)


def _config(path: Path) -> Config:
    if not path.is_file():
        return Config()
    try:
        return Config.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: {error}; mend the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path.name}: {where}: {first['msg']} (known keys: {', '.join(Config.model_fields)})"
        ) from error


def _path(folder: Path, name: str) -> Path | None:
    matches = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    if len(matches) > 1:
        raise InputError(f"{folder} holds {matches[0].name} and {matches[1].name}; keep one of them")
    return matches[0] if matches else None


def _rows(folder: Path, name: str, notes: list[str]) -> tuple[Row, ...]:
    """The rows of a file, without whitespace around answers, long texts in passages; notes say what was done."""
    path = _path(folder, name)
    if path is None:
        raise InputError(f"{folder} has no {name}.jsonl (nor {', '.join(SUFFIXES[1:])}); {MISSING[name]}")
    rows, blanks = stripped(read_rows(path))
    if blanks:
        notes.append(f"whitespace around the answers of {blanks} of {len(rows)} {name} rows is left out")
    passages, texts = cut(rows, f"{name} document")
    if texts:
        notes.append(f"{texts} of {len(rows)} {name} texts are longer than {MAX_TEXT_BYTES} bytes: cut into passages")
    return passages


def _refuse_overlaps(files: Mapping[str, Sequence[Row]], census: bool) -> None:
    """InputError where files share a row; in a census, rows that are trained on may be the measured ones."""
    if not census:
        refuse_overlaps(files)
        return
    refuse_overlaps({name: rows for name, rows in files.items() if name != "forget_queries"})
    refuse_overlaps({name: rows for name, rows in files.items() if name != "forget"})


def _withhold(rows: tuple[Row, ...], name: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    distinct = {row.key: row for row in rows}
    ordered = sorted(distinct.values(), key=lambda row: hashing.hmac_sha256(b"froc withhold", *row.key))
    count = max(1, round(WITHHELD_FRACTION * len(ordered)))
    if len(ordered) < 4:
        raise InputError(
            f"{name}: {len(ordered)} distinct rows are too few to withhold queries from; give {name}_queries"
        )
    measured = {row.key for row in ordered[:count]}
    return tuple(row for row in rows if row.key not in measured), tuple(ordered[:count])


def _default_unit(rows: tuple[Row, ...]) -> Unit:
    return "group" if all(row.group for row in rows) else "query"


def _groupless_note(rows: tuple[Row, ...]) -> list[str]:
    """What rows without a group among others with one mean for the claim; empty without such a mixture."""
    without = [row.at("retain_queries", number) for number, row in enumerate(rows, start=1) if not row.group]
    if not 0 < len(without) < len(rows):
        return []
    return [
        f"{len(without)} of {len(rows)} retain queries name no group ({without[0]} first), so that the sampling unit of utility is the query and "
        "the claim reaches no further than the groups that are listed; give each a group, or say [units] utility in task.toml"
    ]


def refusals(folder: Path, *names: str) -> tuple[str, ...]:
    """Refusals in the first of these files that exists: one per line, or answers of rows; () where none exists."""
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return ()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if any(line.startswith("{") for line in lines):
        return tuple(row.answer.strip() for row in read_rows(path))
    return tuple(line for line in lines if line)


def _template(template: str) -> str:
    if template.count("{question}") != 1 or template.count("{answer}") != 1:
        raise InputError("task.toml: template must hold {question} and {answer} once each")
    if not template.endswith("{answer}"):
        raise InputError("task.toml: template must end with {answer}; the end of the answer is marked by the tokenizer")
    return template


def _arguments(arguments: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
    wrong = sorted(RESERVED & set(arguments))
    if wrong:
        raise InputError(f"task.toml: template_arguments: {wrong[0]} is no argument of a chat template; leave it out")
    return arguments


def _model(folder: Path, named: str | None) -> str | None:
    if named is None:
        return None
    beside = folder / named
    return str(beside) if beside.is_dir() else named
