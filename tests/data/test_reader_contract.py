"""What every reader of a benchmark does with a small folder in the authors' layout; what is bad is one line."""

import json
from pathlib import Path

import polars as pl
import pytest

from froc.data.benchmarks import BenchmarkReader, named, read
from froc.data.passages import MAX_TEXT_BYTES
from froc.data.rows import refuse_overlaps
from froc.data.splits import split
from froc.data.task import UTILITY
from froc.errors import InputError
from froc.plugins import names
from tests.data.benchmark_files import MADE, PARTS, lines, measured, refused, trained, write

OPTIONAL = ("holdout01", "news/knowmem/retain_qa_icl")


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
    task = read(f"{name}:{part}", write(tmp_path / "lines", files))
    assert task == read(f"{name}:{part}", write(tmp_path / "array", files, json.dumps))
    assert task == read(f"{name}:{part}", write(tmp_path / "other", files, lines, ".jsonl"))
    for file, rows in files.items():
        place = tmp_path / "shards" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        for shard, values in enumerate((rows[:1], rows[1:])):
            if values:
                pl.DataFrame(values).write_parquet(f"{place}-{shard:05d}-of-00002.parquet")
    assert task == read(f"{name}:{part}", tmp_path / "shards")


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
