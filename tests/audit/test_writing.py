"""Files of a bundle are replaced whole, and files of a run are read with bounds."""

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest

from froc import bounded_file
from froc.audit import writing
from froc.errors import InputError
from froc.loss_table import SCHEMA


def _table(rows: int) -> pl.DataFrame:
    values = {name: ["a" if kind == pl.String else "0"] * rows for name, kind in SCHEMA.items()}
    return pl.DataFrame(values).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for data in (b"first", b"second, which is longer", b""):
        writing.replace_file(bundle / "report.dsse.json", data)
        assert {path.name: path.read_bytes() for path in bundle.iterdir()} == {"report.dsse.json": data}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_name_without_folder_is_one_of_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    monkeypatch.chdir(bundle)
    writing.replace_file(Path("plan.token"), b"token")
    assert (bundle / "plan.token").read_bytes() == b"token"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_a_killed_process_leaves_lies_beside_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, seen = tmp_path / "bundle", []
    bundle.mkdir()

    def killed(*_: object, **__: object) -> None:
        seen.append(([path.name for path in bundle.iterdir()], len(list(tmp_path.iterdir()))))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        writing.replace_file(bundle / "report.dsse.json", b"data")
    # the half written file beside the bundle
    assert seen == [([], 2)]
    assert list(bundle.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    place = tmp_path / "bundle" / "report.dsse.json"
    place.mkdir(parents=True)
    (place / "more").write_text("a folder that is not empty is not replaced")
    with pytest.raises(InputError, match=r"cannot write .*report\.dsse\.json \(.+\); make its folder writable"):
        writing.replace_file(place, b"data")


def test_a_runs_file_is_read_where_it_is_plain_and_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seal.json"
    with pytest.raises(InputError, match=r"has no readable seal\.json .*that froc search --out wrote"):
        writing.run_bytes(path, tmp_path)
    path.write_bytes(b"12345")
    assert writing.run_bytes(path, tmp_path) == b"12345"
    monkeypatch.setattr(bounded_file, "RUN_BYTES", 5)
    assert writing.run_bytes(path, tmp_path) == b"12345"
    monkeypatch.setattr(bounded_file, "RUN_BYTES", 4)
    with pytest.raises(InputError, match="has no readable"):
        writing.run_bytes(path, tmp_path)


def test_a_loss_table_has_its_columns_and_types_and_a_bounded_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / "calibration.parquet", _table(3)
    more = table.with_columns(pl.col("loss").cast(pl.Int64), more=pl.lit("not read"))
    more.write_parquet(path)
    read = writing.run_losses(path)
    assert read.equals(table)
    assert dict(read.schema) == dict(SCHEMA)
    monkeypatch.setattr(writing, "RUN_ROWS", 3)
    assert writing.run_losses(path).equals(table)
    monkeypatch.setattr(writing, "RUN_ROWS", 2)
    with pytest.raises(InputError, match="holds 3 losses, more than the 2 that a report may have"):
        writing.run_losses(path)
    monkeypatch.undo()
    table.drop("loss").write_parquet(path)
    with pytest.raises(InputError, match="is missing or damaged"):
        writing.run_losses(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is missing or damaged"):
        writing.run_losses(path)
    path.unlink()
    with pytest.raises(InputError, match="is missing or damaged"):
        writing.run_losses(path)


def test_times_are_in_utc_to_the_second_and_days_later() -> None:
    now = datetime(2026, 2, 27, 23, 30, 15, 999_999, tzinfo=timezone(-timedelta(hours=1)))
    assert writing.stamped(now) == "2026-02-28T00:30:15Z"
    assert writing.stamped(now, 2) == "2026-03-02T00:30:15Z"
    stamp = datetime.fromisoformat(writing.stamped(None, 1))
    assert timedelta(hours=23, minutes=59) < stamp - datetime.now(UTC) <= timedelta(days=1)
