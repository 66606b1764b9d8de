"""froc certify counts how often a table was looked at, and with what."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.certification.certify import certify
from froc.data.opening_ledger import certified, record
from froc.data.splits import split
from froc.data.task import FORGETTING
from froc.errors import InputError
from tests.data.test_opening_ledger import TASK


def table(path: Path, names: list[str], loss: float = 0.0, config: str = "c") -> Path:
    pl.DataFrame(
        {"config": config, "risk": "forgetting", "query": names, "loss": [loss, *[0.0] * (len(names) - 1)]}
    ).write_csv(path)
    return path


NAMES = [f"q{i}" for i in range(100)]


def test_a_table_says_how_often_it_was_certified(tmp_path: Path) -> None:
    first = certify(table(tmp_path / "a.csv", NAMES), 0.1).document
    assert first["looks"] == {"times": 1, "ways": 1, "sealed": False}
    assert first["opening"]["statement"].startswith("first and only")
    assert not any("was certified" in line for line in first["warnings"])
    # the same again asks nothing new, in whatever file or order
    again = certify(table(tmp_path / "b.csv", NAMES[::-1]), 0.1).document
    assert (again["looks"]["times"], again["looks"]["ways"], again["opening"]["number"]) == (2, 1, 1)
    changes: list[tuple[list[str], dict[str, Any]]] = [
        (NAMES, {"confidence": 0.8}),
        ([n.upper() for n in NAMES[1:]], {}),
        (NAMES, {"bound": "hoeffding_bentkus"}),
    ]
    for number, (names, text) in enumerate(changes, start=2):
        certificate = certify(table(tmp_path / "c.csv", names), 0.1, **text)
        assert certificate.document["looks"] == {"times": number + 1, "ways": number, "sealed": False}
        assert certificate.document["opening"]["number"] == number
        assert any(
            f"certified {number + 1} times (with {number} different sets" in line for line in certificate.sentences()
        )
    second = certify(table(tmp_path / "d.csv", [f"other {n}" for n in NAMES]), 0.1).document
    assert second["looks"]["times"] == 1


@pytest.mark.parametrize(
    "words",
    [
        {"bound": "normal_test_betting", "population": {"forgetting": "sample"}, "listed": {"forgetting": 800}},
        {"bound": "binomial"},
        {"budget": {"relative": 0.1}},
    ],
)
def test_what_is_refused_shows_nothing_and_is_not_counted(tmp_path: Path, words: dict[str, Any]) -> None:
    path = table(tmp_path / "a.csv", NAMES, loss=0.5)
    with pytest.raises(InputError):
        certify(path, **{"budget": 0.1, **words})
    assert certify(path, 0.1).document["looks"]["times"] == 1


def test_another_model_on_the_same_queries_is_another_way(tmp_path: Path) -> None:
    certify(table(tmp_path / "a.csv", NAMES), 0.1)
    assert certify(table(tmp_path / "a.csv", NAMES, 0.5, "d"), 0.1).document["looks"] == {
        "times": 2,
        "ways": 2,
        "sealed": False,
    }


def test_the_number_of_a_way_is_the_place_of_its_first_use() -> None:
    """On any of the present rows: what was first tried on a part of them is no later way."""
    first, rest = (frozenset(names) for names in (NAMES[:60], NAMES[40:]))
    uses = [(first, "x"), (first, "y"), (rest, "x"), (rest, "y"), (rest, "z")]
    counts = [certified({"r": names}, options) for names, options in uses]
    assert [count.number for count in counts] == [1, 2, 1, 2, 3]
    assert [count.options for count in counts] == [1, 2, 2, 2, 3]
    assert [count.times for count in counts] == [1, 2, 3, 4, 5]


def test_a_table_without_rows_was_certified_this_time() -> None:
    """Whatever else was."""
    certified({"r": frozenset(NAMES)}, "x")
    assert [certified({}, "x").times for _ in range(2)] == [1, 1]


def test_names_that_are_mere_numbers_are_no_names(tmp_path: Path) -> None:
    """Every log counts its rows from 0: other data with another number of rows are no second look."""
    for count, times in ((100, 1), (120, 1), (100, 2)):
        certificate = certify(table(tmp_path / "a.csv", [str(i) for i in range(count)]), 0.1).document
        assert certificate["looks"]["times"] == times


def test_a_runs_own_calibration_file_is_known(tmp_path: Path) -> None:
    sealed = split(TASK, 0.2)[1]
    record(sealed.counted, "plan", "seal", 1, False)
    names = sealed.order.filter(pl.col("risk") == FORGETTING)["query"].to_list()
    certificate = certify(table(tmp_path / "copy.csv", names), 0.5)
    assert certificate.document["looks"]["sealed"]
    assert any("calibration queries of a search on this machine" in line for line in certificate.document["warnings"])


def test_frames_are_not_counted_and_no_table_fails_for_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "a.csv", NAMES)
    for _ in range(3):
        assert "looks" not in certify(pl.read_csv(path), 0.1).document
    assert not (tmp_path / "state").exists()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FROC_STATE", str(tmp_path / "file"))
    certificate = certify(path, 0.1)
    assert certificate.chosen == "c"
    assert any("could not be counted" in line for line in certificate.document["warnings"])
