"""froc show --watch and signals: a run that is looked at, and one that is told to end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cli.conftest import Froc
from tests.cli.test_commands import refused, write
from tests.commands import ROOT


def test_watching_ends_with_the_run(tmp_path: Path) -> None:
    """It may begin before the run; it says each trial once, then what the run came to."""
    run = tmp_path / "run"
    watcher = subprocess.Popen(
        [sys.executable, "-m", "froc", "show", str(run), "--watch", "--interval", "0.1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run.mkdir()
    lines = [
        {"trial": number, "attempt": 1, "config": f"c000{number}", "method": "npo", "params": {}, "seed": 1,
         "started": "2026-11-24T10:00:00Z", "plan": "", "status": "pruned"}
        for number in range(3)
    ]  # fmt: skip
    for count in range(1, 4):
        write(run / ".part", lines[:count])
        os.replace(run / ".part", run / "trials.jsonl")
        time.sleep(0.4)
    certificate: dict[str, Any] = {
        "chosen": None, "reason": "nothing passed", "confidence": 0.9, "warnings": [], "sequential": None, "candidates": [],
        "certified": [], "budget": {"forgetting": 0.1}, "cur": {},
    }  # fmt: skip
    (run / "plan.json").write_text(json.dumps({"budget": {"forgetting": 0.1}, "search": {"trials": 3}}))
    (run / "certificate.json").write_text(json.dumps(certificate))
    out, error = watcher.communicate(timeout=60)
    assert watcher.returncode == 3, error
    assert [line for line in out.splitlines() if line.endswith("npo pruned")] == [
        f"c000{number} npo pruned" for number in range(3)
    ]
    assert "nothing passed" in out


def test_names_in_a_log_that_is_watched_are_shown_as_their_characters(froc: Froc, tmp_path: Path) -> None:
    line = {
        "trial": 0, "attempt": 1, "config": "c0000", "method": "a[/b]\x1b[31m", "params": {}, "seed": 1,
        "started": "2026-11-24T10:00:00Z", "plan": "", "status": "pruned",
    }  # fmt: skip
    write(tmp_path / "trials.jsonl", [line])
    (tmp_path / "plan.json").write_text(json.dumps({"budget": {"forgetting": 0.1}, "search": {"trials": 1}}))
    (tmp_path / "certificate.json").write_text(json.dumps({"chosen": None, "reason": "none", "opened": False}))
    done = froc("show", str(tmp_path), "--watch")
    assert done.returncode == 3, done.stderr
    assert "c0000 a[/b]\\u001b[31m pruned" in done.stdout.replace('"', "")
    assert "\x1b" not in done.stdout


def test_watching_and_json_exclude_each_other(froc: Froc, tmp_path: Path) -> None:
    refused(froc("show", str(tmp_path), "--watch", "--json"), "--watch")


def test_terminated_before_the_run_has_begun(tmp_path: Path) -> None:
    watchers = {
        sent: subprocess.Popen(
            [sys.executable, "-m", "froc", "show", str(tmp_path / "run"), "--watch"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) for sent in (signal.SIGTERM, signal.SIGINT)
    }  # fmt: skip
    end = time.monotonic() + 60
    while not all(_catches(watcher.pid, signal.SIGTERM) for watcher in watchers.values()) and time.monotonic() < end:
        time.sleep(0.05)
    # they have begun, and now watch or load what they need to watch
    time.sleep(1.0)
    ended = {}
    for sent, watcher in watchers.items():
        watcher.send_signal(sent)
        _, error = watcher.communicate(timeout=60)
        ended[sent] = watcher.returncode, "Traceback" in error
    assert ended == {signal.SIGTERM: (130, False), signal.SIGINT: (130, False)}


def _catches(pid: int, sent: signal.Signals) -> bool:
    """Whether a process has a handler of its own for the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (sent - 1) & 1)
