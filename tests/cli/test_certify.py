"""froc certify by the command line: tables that are read, claims that are made, names that stay text."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Froc
from tests.cli.test_commands import refused


def _table(path: Path, rows: list[str]) -> Path:
    path.write_text("config,risk,query,loss\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_certify_says_yes_and_no(froc: Froc, tmp_path: Path) -> None:
    good = [f"{c},forgetting,q{i},{loss}" for c, loss in (("a", 0), ("b", 0.4)) for i in range(100)]
    done = froc("certify", str(_table(tmp_path / "t.csv", good)), "-b", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["certified"] == ["a"]
    assert document["chosen"] == "a"
    no = froc("certify", str(tmp_path / "t.csv"), "-b", "0.001", "--json")
    assert no.returncode == 3
    assert json.loads(no.stdout)["chosen"] is None
    assert "it would take" in no.stderr


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,forgetting,q3,nan", ["row 3"]),
        ("a,forgetting,q3,1.0000001", ["row 3"]),
        ("a,forgetting,q3,-0.1", ["row 3"]),
        ("a,forgetting,q3,", ["row 3"]),
        ("a,forgetting,q3,x", ["row 3", "number"]),
        ("a,forgetting,q1,0.5", ["row 3", "repeats"]),
        ("b,forgetting,q1,0.5", ["'b'", "lacks 1"]),
    ],
)
def test_certify_refuses_bad_rows(froc: Froc, tmp_path: Path, row: str, words: list[str]) -> None:
    table = _table(tmp_path / "t.csv", ["a,forgetting,q1,0.5", "a,forgetting,q2,0.5", row])
    refused(froc("certify", str(table), "-b", "0.1"), "t.csv", *words)


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configurations on 300 calibration queries per risk: one good, one bad."""
    rows = [
        {"config": config, "risk": risk, "query": f"{risk}{i}", "loss": float(i % 100 < rate)}
        for config, rate in (("good", 2), ("bad", 30))
        for risk in ("forgetting", "utility")
        for i in range(300)
    ]
    path = tmp_path_factory.mktemp("table") / "losses.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["-b", "0.1", "--binary"], {"bound": {"forgetting": "binomial", "utility": "binomial"}, "chosen": "good"}),
        (["-b", "0.1", "--procedure", "fixed-sequence:starts=2"], {"procedure": "fixed-sequence:starts=2"}),
        (["-b", "combined=0.07", "--weight", "0.5"], {"budget": {"combined": 0.07}, "chosen": "good"}),
        (
            [
                "-b",
                "0.1",
                "--population",
                "forgetting=census",
                "--population",
                "utility=sample",
                "--listed",
                "utility=900",
            ],
            {"bound": {"forgetting": "census", "utility": "betting_over_orders_without_replacement"}, "chosen": "good"},
        ),
    ],
)
def test_certify_makes_every_kind_of_claim(
    froc: Froc, losses: Path, tmp_path: Path, options: list[str], wanted: dict[str, Any]
) -> None:
    figure = tmp_path / "shift.png"
    done = froc("certify", str(losses), *options, "--radius", "0.01", "--figure", str(figure), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {key: document[key] for key in wanted} == wanted
    assert document["certified"] == ["good"]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_screening_is_no_certificate(froc: Froc, losses: Path) -> None:
    done = froc("certify", str(losses), "-b", "0.1", "--procedure", "e-bh", "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert (document["screened"], document["certified"], document["chosen"]) == (["good"], [], None)
    assert "nothing is certified" in done.stderr


def test_names_from_a_table_reach_the_terminal_as_characters(froc: Froc, tmp_path: Path) -> None:
    """No escape is obeyed, no bracket is taken for markup."""
    names = ["\x1b]0;owned\x07\x1b[31mred", "[link=http://a]x[/link]"]
    rows = [f'"{name}",forgetting,q{i},0.0' for name in names for i in range(60)]
    (tmp_path / "t.csv").write_text("config,risk,query,loss\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = froc("certify", str(tmp_path / "t.csv"), "--budget", "0.3", "--named-beforehand")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\\u001b]0;owned\\u0007" in done.stdout
    assert "[link=http://a]x[/link]" in done.stdout
