"""`froc plan` from the command line."""

import json
from pathlib import Path

import polars as pl
import pytest

from froc.cli.plan import EXAMPLES
from tests.commands import Commands


def test_a_plan_in_words_and_as_json(commands: Commands, tmp_path: Path) -> None:
    command = ("plan", "-b", "0.1", "--expected-risk", "0.03", "--units", "120", "--binary")
    done = commands.run([*command, "--figure", str(tmp_path / "plan.png")])
    assert done.returncode == 0, done.stderr
    assert "needed at zero loss" in done.stdout
    assert "120 units bear 5 losses of 1" in done.stdout
    assert (tmp_path / "plan.png").stat().st_size > 5000
    document = json.loads(commands.run([*command, "--json"]).stdout)
    assert document["zero"] == {"forgetting": 33, "utility": 33}
    assert document["needed"] == {"forgetting": 149, "utility": 149}


def test_named_budgets_are_the_risks(commands: Commands) -> None:
    done = commands.run(["plan", "-b", "quantized=0.2", "-b", "forgetting=0.05", "--json"])
    assert list(json.loads(done.stdout)["zero"]) == ["forgetting", "quantized"]
    done = commands.run(["plan", "-b", "0.1", "-b", "privacy=0.2", "--json"])
    assert json.loads(done.stdout)["budget"] == {"forgetting": 0.1, "utility": 0.1, "privacy": 0.2}


def test_a_table_gives_its_search_losses(commands: Commands, tmp_path: Path) -> None:
    rows = [
        {"config": c, "risk": "leakage", "split": split, "query": f"{split}{q}", "loss": float(q % every == 0)}
        for c, every in (("a", 40), ("b", 5))
        for split in ("search", "calibration")
        for q in range(80)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
    command = ["plan", "-b", "0.1", "--from", str(tmp_path / "t.parquet"), "--units", "200", "--json"]
    document = json.loads(commands.run(command).stdout)
    assert document["candidates"] == 2
    assert document["risks"]["leakage"] == [pytest.approx(3 / 81)]
    assert "80 search query units of a" in document["said"][0]


@pytest.mark.parametrize(
    "line", [line for line in EXAMPLES.splitlines() if line.startswith("froc") and "--from" not in line]
)
def test_examples_of_the_help_run(commands: Commands, tmp_path: Path, line: str) -> None:
    done = commands.run([*line.split()[1:], "--json"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ladder"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-b", "2"], "outside (0, 1)"),
        (["-b", "Leak=0.1"], "lower case"),
        (["-b", "0.1", "--units", "many"], "no number"),
        (["-b", "0.1", "--units", "privacy=100"], "no risk is called 'privacy'"),
        (["-b", "0.1", "--from", "nowhere.csv"], "does not exist"),
        (["-b", "0.1", "--design", "auto"], "--from"),
    ],
)
def test_bad_words(commands: Commands, words: list[str], message: str) -> None:
    done = commands.run(["plan", *words])
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0
