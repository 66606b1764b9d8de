"""The audit commands on a small real run: a plan signed first, two people, measuring again."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Commands

Froc = Callable[..., subprocess.CompletedProcess[str]]
PASSWORD = {"FROC_KEY_PASSWORD": "a long word"}


@pytest.fixture(scope="module")
def froc(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Froc:
    state = {"FROC_STATE": str(tmp_path_factory.mktemp("openings"))}

    def run(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return commands.run([str(word) for word in words], os.environ | state | (env or {}))

    return run


def _rows(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, froc: Froc, base: Any) -> Path:
    """Keys, a task, a base model, and a run whose plan was signed before its first trial."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "task").mkdir()
    _rows(folder / "task" / "forget.jsonl", [(f"who is {i}", f"person {i}") for i in range(40)])
    _rows(folder / "task" / "retain.jsonl", [(f"what is {i}", f"thing {i}") for i in range(40)])
    _rows(folder / "task" / "forget_queries.jsonl", [(f"tell me who {i} is", f"person {i}") for i in range(80)])
    _rows(folder / "task" / "retain_queries.jsonl", [(f"tell me what {i} is", f"thing {i}") for i in range(80)])
    base.restore()
    base.model.save_pretrained(folder / "model")
    base.tokenizer.save_pretrained(folder / "model")
    for name in ("engineer", "approver"):
        assert froc("audit", "keygen", folder / name, "--encrypt", env=PASSWORD).returncode == 0
    done = froc(*_search(folder), env=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert "plan signed before the first trial" in done.stderr
    return folder


def _search(folder: Path) -> list[object]:
    return [
        "search", "-b", "0.3", "--task", folder / "task", "--model", folder / "model", "--trials", "3",
        "--methods", "npo,simnpo", "--candidates", "2", "-o", folder / "run", "--key", folder / "engineer", "--audit-seed", 1234,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(place: Path, froc: Froc) -> Path:
    done = froc(
        "audit", "report", place / "run", "--key", place / "engineer", "--out", place, "--name", "small", env=PASSWORD
    )
    assert done.returncode == 0, done.stderr
    return place / "small.froc-audit"


def test_a_plan_is_signed_before_the_first_trial(place: Path, froc: Froc, bundle: Path) -> None:
    done = froc(
        "audit", "verify", bundle, "--key", place / "engineer.pub", "--model", place / "run" / "model", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"] == "signed-before-first-trial"
    for seed, code in ((1234, 0), (1235, 4)):
        assert froc("audit", "verify", bundle, "--key", place / "engineer.pub", "--audit-seed", seed).returncode == code
    assert "plan-signed-after-run" not in (bundle / "report.html").read_text()


def test_a_run_that_goes_on_keeps_its_signature(place: Path, froc: Froc, bundle: Path) -> None:
    signed = (place / "run" / "plan.dsse.json").read_bytes()
    done = froc(*_search(place), env=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert "keeps the signature" in done.stderr
    assert (place / "run" / "plan.dsse.json").read_bytes() == signed
    other = froc(*_search(place), "--key", place / "approver", env=PASSWORD)
    assert other.returncode == 2
    assert "was not signed with" in other.stderr


@pytest.mark.parametrize("command", [["search", "-b", "0.3"], ["audit", "model", "-b", "0.3", "--unlearned", "none"]])
def test_a_key_that_cannot_be_used_is_refused_first(
    place: Path, froc: Froc, tmp_path: Path, command: list[str]
) -> None:
    for key, env in ((place / "none", PASSWORD), (place / "engineer", {}), (place / "engineer.pub", PASSWORD)):
        done = froc(*command, "-o", tmp_path / "run", "--key", key, env=env)
        assert done.returncode == 2, done.stderr
        assert str(key) in done.stderr
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def signed(place: Path, froc: Froc, bundle: Path) -> Path:
    """The bundle with an approver's signature, and a trust file that asks for both."""
    trust = {
        "format": 1, "keys": [{"role": role, "path": f"{role}.pub"} for role in ("engineer", "approver")],
        "threshold": 2, "roles": {"engineer": 1, "approver": 1},
    }  # fmt: skip
    (place / "trust.json").write_text(json.dumps(trust))
    assert froc("audit", "verify", bundle, "--trust", place / "trust.json").returncode == 4
    done = froc(
        "audit", "sign", bundle, "--key", place / "approver", "--trust", place / "trust.json",
        "--model", place / "run" / "model", env=PASSWORD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return bundle


def test_two_people_sign(place: Path, froc: Froc, signed: Path) -> None:
    done = froc("audit", "verify", signed, "--trust", place / "trust.json", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(one["role"] for one in json.loads(done.stdout)["signers"]) == ["approver", "engineer"]
    shown = froc("audit", "verify", signed, "--trust", place / "trust.json").stdout
    assert "signed by approver" in shown
    again = froc("audit", "sign", signed, "--key", place / "approver", "--trust", place / "trust.json", env=PASSWORD)
    assert again.returncode == 2
    assert "has signed this already" in again.stderr
    for words in ([], ["--key", place / "engineer.pub", "--trust", place / "trust.json"]):
        assert froc("audit", "verify", signed, *words).returncode == 2
