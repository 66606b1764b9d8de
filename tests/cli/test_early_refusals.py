"""What is wrong by itself is refused before torch is imported: nobody waits seconds to read that a word was mistyped."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys

sys.argv = ["froc", *sys.argv[1:]]
from froc.cli.main import main

try:
    main()
finally:
    print("torch was imported" if "torch" in sys.modules else "no torch", file=sys.stderr)
"""
SEARCH = ("search", "--budget", "0.1")


def _ended(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=False, cwd=cwd)


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
def test_refused_without_torch(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "a", "answer": "b"}\nno JSON\n', encoding="utf-8")
    done = _ended(tmp_path, *(word.replace("{task}", str(tmp_path)) for word in words))
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert done.stderr.endswith("no torch\n"), done.stderr


@pytest.mark.parametrize("words", [("list", "methods"), ("list", "metrics"), ("--help",), ("search", "--help")])
def test_read_without_torch(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = _ended(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("no torch\n"), done.stderr


@pytest.mark.parametrize(("device", "why"), [("cuda:7", "cuda"), ("quantum", "no device of torch"), ("npu", "npu")])
def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path, device: str, why: str) -> None:
    done = _ended(tmp_path, *SEARCH, "--device", device)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
