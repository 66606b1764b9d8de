"""What each format makes of another's file, and of one bad row among good ones. The samples are the format contract's."""

import re
from pathlib import Path
from typing import Any

import pytest

from froc.errors import InputError
from tests.formats.test_format_contract import FORMATS, GOOD, SAMPLES, SECRET, place, read, refused


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_a_file_of_another_format_is_not_taken(name: str, second: str, tmp_path: Path) -> None:
    """Under the name that the format looks for, with valid scores: the refusal is one line, without a row's text."""
    folder = tmp_path / "model"
    path = place(folder, name, SAMPLES[second].of(GOOD, ""))
    if name == second:
        assert read(name, path).losses["loss"].to_list() == [0, 250, 1000]
        return
    with pytest.raises(InputError) as caught:
        read(name, path)
    message = str(caught.value)
    # a log without the measure is called by its configuration, which is its folder
    assert path.name in message or message.startswith("model has no measure ")
    assert "\n" not in message
    assert SECRET not in message


@pytest.mark.parametrize("position", [0, 2, 3])
@pytest.mark.parametrize(
    ("name", "bad"),
    # a task of lm_eval whose values are words has no measure
    [(name, bad) for name in FORMATS for bad in (1.5, -0.5, "word") if name != "lm_eval" or bad != "word"],
)
def test_the_bad_row_is_named(name: str, position: int, bad: float | str, tmp_path: Path) -> None:
    """Logs number their rows (or lines) from 0 as the tools do, froc's table from 1."""
    values: list[Any] = [0.5] * 4
    values[position] = bad
    message = refused(name, place(tmp_path, name, SAMPLES[name].of(values, "")))
    rows = re.findall(r"\b(?:row|sample) s?(\d+)\b", message)
    assert rows == [str(position + (name == "table"))]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "table"])
def test_losses_stay_with_their_queries(name: str, tmp_path: Path) -> None:
    """The same rows with their scores in another order give each query its own score."""
    first = read(name, place(tmp_path / "one", name, SAMPLES[name].of([0.0, 0.25, 1.0], ""))).losses
    second = read(name, place(tmp_path / "two", name, SAMPLES[name].of([1.0, 0.0, 0.25], ""))).losses
    assert first["query"].to_list() == second["query"].to_list()
    assert (first["loss"].to_list(), second["loss"].to_list()) == ([0, 250, 1000], [1000, 0, 250])
