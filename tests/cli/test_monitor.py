"""`froc monitor` from the command line: its exit codes, and a stream over several calls."""

import json
from pathlib import Path

import pytest

from tests.commands import Commands


def table(path: Path, losses: list[float], start: int = 0) -> Path:
    lines = [f"a,forgetting,q{start + i},{loss}" for i, loss in enumerate(losses)]
    path.write_text("config,risk,query,loss\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def certificate(commands: Commands, tmp_path: Path) -> Path:
    """What froc certify printed."""
    done = commands.run(["certify", str(table(tmp_path / "t.csv", [0.0] * 99 + [0.5])), "-b", "0.1", "--json"])
    assert done.returncode == 0, done.stderr
    path = tmp_path / "certificate.json"
    path.write_text(done.stdout, encoding="utf-8")
    return path


def test_a_stream_over_several_calls(commands: Commands, certificate: Path, tmp_path: Path) -> None:
    kept = ["--certificate", str(certificate), "--state", str(tmp_path / "state" / "monitor.json")]
    good = table(tmp_path / "good.csv", [0.0, 0.1] * 50, 1000)
    first = commands.run(["monitor", str(good), *kept])
    assert first.returncode == 0, first.stderr
    assert "No alarm" in first.stdout
    assert "100 rows counted, 0 were" in first.stdout
    assert "0 rows counted, 100 were" in commands.run(["monitor", str(good), *kept]).stdout
    bad = table(tmp_path / "bad.csv", [1.0, 0.0] * 20, 2000)
    figure = tmp_path / "monitor.png"
    done = commands.run(["monitor", str(bad), *kept, "--figure", str(figure), "--json"])
    assert done.returncode == 3
    assert "alarm: forgetting above budget" in done.stderr
    assert json.loads(done.stdout)["risks"]["forgetting"]["n"] == 140
    assert figure.stat().st_size > 5000
    # it stays
    assert commands.run(["monitor", str(good), *kept]).returncode == 3


def test_bad_words(commands: Commands, certificate: Path, tmp_path: Path) -> None:
    losses = str(table(tmp_path / "good.csv", [0.0] * 10, 1000))
    for words, message in (
        (["--certificate", str(tmp_path / "none.json")], "is not there"),
        (["--certificate", losses], "no JSON document"),
        (["--certificate", str(certificate), "--alarm", "2"], "outside (0, 1)"),
        (["--certificate", str(certificate), "--risk", "privacy"], "no budget for a risk 'privacy'"),
        (["--certificate", str(certificate), "--config", "b"], "b is not certified"),
    ):
        done = commands.run(["monitor", losses, *words])
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""
        assert done.stderr.strip().count("\n") == 0
