"""Invalid options are refused before torch is imported: the message about a mistyped word takes no seconds of imports."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT, Commands

MODULES = (
    "froc.cli.main",
    "froc.search.settings",
    "froc.search.optuna.space",
    "froc.certification.result",
    "polars",
    "scipy.stats",
)
"""Imported before the first command. A module among them that imports torch fails every test of this file."""
SEARCH = ("search", "--budget", "0.1")


@pytest.fixture(scope="module")
def light(_places: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands from a process without torch, which say at their end whether they have imported it."""
    made = Commands(tmp_path_factory.mktemp("light"), MODULES, "tests.cli.imports")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*SEARCH, "--methods", "npoo"), "did you mean 'npo'"),
        ((*SEARCH, "--methods", "gu(npoo)"), "did you mean 'npo'"),
        ((*SEARCH, "--sampler", "tpee"), "no sampler"),
        ((*SEARCH, "--train", "lora:x"), "--train lora:x"),
        ((*SEARCH, "--executor", "cloud"), "no executor"),
        ((*SEARCH, "--dtype", "int3"), "no dtype"),
        ((*SEARCH, "--device", "gpu one"), "no device"),
        ((*SEARCH, "--metric", "forgetting=rogue"), "no metric is called"),
        ((*SEARCH, "--risk", "x=rouge_l@leak"), "no attack"),
        ((*SEARCH, "--task", "nowhere"), "nowhere is no folder"),
        ((*SEARCH, "--profile", "strict", "--task", "nowhere"), "nowhere is no folder"),
        ((*SEARCH, "--task", "{task}"), "forget.jsonl line 2"),
        ((*SEARCH, "--model", "./nowhere"), "nowhere does not exist"),
        (("bench", "--task", "nowhere"), "nowhere is no folder"),
        (("compare", "nowhere"), "no run folder"),
        (
            ("audit", "model", "--unlearned", "nowhere", "--budget", "0.1", "--out", "{task}/run"),
            "nowhere is no folder",
        ),
        (("show", "nowhere"), "no run folder"),
    ],
)
def test_refused_without_torch(light: Commands, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "a", "answer": "b"}\nno JSON\n', encoding="utf-8")
    done = light.run([word.replace("{task}", str(tmp_path)) for word in words], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert done.stderr.endswith("no torch\n"), done.stderr


@pytest.mark.parametrize("words", [("list", "methods"), ("list", "metrics"), ("--help",), ("search", "--help")])
def test_read_without_torch(light: Commands, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = light.run(words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("no torch\n"), done.stderr


def test_a_new_process_prints_the_same(light: Commands, tmp_path: Path) -> None:
    """Without the modules that the other commands find imported."""
    words = (*SEARCH, "--methods", "npoo")
    own = subprocess.run(
        [sys.executable, "-m", "tests.cli.imports", *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    done = light.run(words)
    assert (own.returncode, own.stdout, own.stderr) == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("device", "why"), [("cuda:7", "cuda"), ("quantum", "no device of torch"), ("npu", "npu")])
def test_a_device_that_is_not_there_is_one_sentence(
    commands: Commands, light: Commands, tmp_path: Path, device: str, why: str
) -> None:
    """Only torch knows its devices; `quantum` is refused by a process that imports torch for this."""
    done = (light if device == "quantum" else commands).run([*SEARCH, "--device", device], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert device != "quantum" or done.stderr.endswith("torch was imported\n")
