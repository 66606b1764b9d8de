"""The audit commands on a small real run: a plan signed first, two people, measuring again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.audit.documents import Plan
from froc.data.task import Task
from froc.risk.certificate import Candidate, certify
from froc.risk.positive_control import Control
from tests.audit import independent
from tests.audit.authority import Authority, served
from tests.commands import ROOT, Commands
from tests.task_folder import write_rows

Froc = Callable[..., subprocess.CompletedProcess[str]]
PASSWORD = {"FROC_KEY_PASSWORD": "a long word"}


@pytest.fixture(scope="module")
def froc(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Froc:
    state = {"FROC_STATE": str(tmp_path_factory.mktemp("openings"))}

    def run(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return commands.run([str(word) for word in words], os.environ | state | (env or {}))

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, froc: Froc, base: Any, task: Task) -> Path:
    """Keys, a task whose people the base model knows, and a run whose plan was signed before its first trial."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "task").mkdir()
    (folder / "task" / "task.toml").write_text(f"template = {json.dumps(task.template)}\n")
    parts = {"forget": task.forget, "retain": task.retain}
    for name, rows in (
        parts | {"forget_queries": task.queries["forgetting"], "retain_queries": task.queries["utility"]}
    ).items():
        write_rows(folder / "task" / f"{name}.jsonl", rows)
    base.restore()
    base.model.save_pretrained(folder / "model")
    base.tokenizer.save_pretrained(folder / "model")
    for name in ("engineer", "approver"):
        assert froc("audit", "keygen", folder / name, "--encrypt", env=PASSWORD).returncode == 0
    done = froc(*_search(folder), env=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert "plan signed before the first trial" in done.stderr
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Authority]]:
    with served(tmp_path_factory.mktemp("authority")) as address:
        yield address


def _search(folder: Path) -> list[object]:
    return [
        "search", "-b", "0.3", "--task", folder / "task", "--model", folder / "model", "--trials", "3",
        "--methods", "npo,grad_diff", "--candidates", "2", "--batch", 16,
        "--space", "lr=2e-3:8e-3", "--space", "epochs=2:4", "-o", folder / "run", "--key", folder / "engineer", "--audit-seed", 1234,
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


def test_the_second_verifier_takes_the_report_of_a_search(place: Path, bundle: Path) -> None:
    """With what only a search writes into a certificate, such as what each mean is a mean of."""
    now = datetime.now(UTC)
    assert independent.check(bundle, [place / "engineer.pub"], place / "run" / "model", now) == "PASS"


def test_a_run_that_goes_on_keeps_its_signature(place: Path, froc: Froc, bundle: Path) -> None:
    signed = (place / "run" / "plan.dsse.json").read_bytes()
    done = froc(*_search(place), env=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert "keeps the signature" in done.stderr
    assert (place / "run" / "plan.dsse.json").read_bytes() == signed
    second_key = froc(*_search(place), "--key", place / "approver", env=PASSWORD)
    assert second_key.returncode == 2
    assert "was not signed with" in second_key.stderr


def test_an_independent_clock(place: Path, froc: Froc, authority: tuple[str, Authority], tmp_path: Path) -> None:
    url, clock = authority
    tsa = ["--tsa", url, "--tsa-root", clock.root]
    done = froc(*_search(place), "--out", tmp_path / "run", "--trials", 1, *tsa, "--reopen", env=PASSWORD)
    assert done.returncode in (0, 3), done.stderr
    assert "stamped at" in done.stderr
    report = ["audit", "report", tmp_path / "run", "--key", place / "engineer", "--out", tmp_path, "--name", "clock"]
    assert froc(*report, env=PASSWORD).returncode == 0
    bundle = tmp_path / "clock.froc-audit"
    done = froc("audit", "stamp", bundle, *tsa, "--json")
    assert done.returncode == 0, done.stderr
    assert [(bundle / name).is_file() for name in json.loads(done.stdout)["files"]] == [True]
    keys = [{"role": "engineer", "path": str(place / "engineer.pub")}]
    (tmp_path / "trust.json").write_text(json.dumps({"format": 1, "keys": keys, "tsa": [{"root": str(clock.root)}]}))
    pinned = froc("audit", "verify", bundle, "--trust", tmp_path / "trust.json", "--json")
    assert json.loads(pinned.stdout)["levels"] == {"L1": True, "L2": False, "L3": True, "L4": True, "L5": False}
    by_hand = froc("audit", "verify", bundle, "--key", place / "engineer.pub")
    assert "L4 is not reached" in by_hand.stdout
    assert "not checked" in by_hand.stdout
    for trust, level, reached in (("--trust", 2, True), ("--trust", 4, False), ("--key", 4, True)):
        key = tmp_path / "trust.json" if trust == "--trust" else place / "engineer.pub"
        done = froc("audit", "verify", bundle, trust, key, "--level", level)
        assert done.returncode == (3 if reached else pinned.returncode)
        assert (f"does not reach L{level}" in done.stderr) is (reached and pinned.returncode == 0)
    for words in (["--tsa", url], ["--responses", tmp_path], [], [*tsa, "--requests", tmp_path]):
        assert froc("audit", "stamp", bundle, *words).returncode == 2
    assert froc(*_search(place)[:-4], "--out", tmp_path / "other", *tsa).returncode == 2


@pytest.mark.parametrize("command", [["search", "-b", "0.3"], ["audit", "model", "-b", "0.3", "--unlearned", "."]])
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
    assert sorted(signer["role"] for signer in json.loads(done.stdout)["signers"]) == ["approver", "engineer"]
    shown = froc("audit", "verify", signed, "--trust", place / "trust.json").stdout
    assert "signed by approver" in shown
    again = froc("audit", "sign", signed, "--key", place / "approver", "--trust", place / "trust.json", env=PASSWORD)
    assert again.returncode == 2
    assert "has signed this already" in again.stderr
    for words in ([], ["--key", place / "engineer.pub", "--trust", place / "trust.json"]):
        assert froc("audit", "verify", signed, *words).returncode == 2


def test_a_report_is_exported_once_it_verifies(place: Path, froc: Froc, signed: Path, tmp_path: Path) -> None:
    words = ["audit", "export", signed, "--key", place / "engineer.pub", "--format"]
    for name, expected in (
        ("markdown", "### ✅"),
        ("model-card", "model-index:"),
        ("cyclonedx", '"specVersion": "1.6"'),
    ):
        done = froc(*words, name)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    page = tmp_path / "verified.html"
    done = froc(*words, "page", "--model", place / "run" / "model", "--out", page)
    assert done.returncode == 0, done.stderr
    assert "<strong>Verified 2" in page.read_text(encoding="utf-8")
    assert "model files match" in page.read_text(encoding="utf-8")
    statement, held = tmp_path / "svr.json", ["--against", tmp_path / "svr.json", "--signed-by", place / "approver.pub"]
    done = froc(*words, "svr", "--sign", place / "approver", "--out", statement, env=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert "says what the report shows" in froc(*words, "svr", *held).stdout
    statement.write_bytes((signed / "report.dsse.json").read_bytes())
    assert froc(*words, "svr", *held).returncode == 4
    for more, expected in (
        (["pdf"], "no format"), (["svr"], "--sign KEY"), (["markdown", *held], "--against"),
        (["markdown", "--url", "javascript:alert(1)"], "no address"), (["markdown", "--out", tmp_path / "no" / "x"], "cannot write"),
    ):  # fmt: skip
        done = froc(*words, *more)
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr


def test_nothing_unverified_is_exported(place: Path, froc: Froc, signed: Path, tmp_path: Path) -> None:
    copied, out = Path(shutil.copytree(signed, tmp_path / "x.froc-audit")), tmp_path / "out.md"
    (copied / "losses.csv").write_bytes((copied / "losses.csv").read_bytes().replace(b",1000\n", b",0\n", 1))
    done = froc("audit", "export", copied, "--key", place / "engineer.pub", "--format", "markdown", "--out", out)
    assert done.returncode == 4, done.stderr
    assert not out.exists()
    assert done.stdout == ""


def test_a_run_that_is_not_audited_is_shown_unsigned(place: Path, froc: Froc, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = froc("show", place / "run", "--page", page)
    assert done.returncode == 0, done.stderr
    assert "<title>UNSIGNED: " in page.read_text(encoding="utf-8")
    # a browser that notes what it was to open
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    whole = [sys.executable, "-m", "froc", "show", str(place / "run"), "--open"]
    env = os.environ | {"BROWSER": str(browser)}
    opened = subprocess.run(whole, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert opened.returncode == 0, opened.stderr
    assert seen.read_text().strip() == (place / "run" / "unsigned.html").as_uri()
    assert (place / "run" / "unsigned.html").exists()
    assert froc("show", tmp_path, "--open").returncode == 2
    assert "cannot write" in froc("show", place / "run", "--page", tmp_path / "no" / "page.html").stderr


@pytest.fixture(scope="module")
def again(place: Path, froc: Froc, signed: Path) -> Path:
    """A copy of the bundle with its losses measured again by an auditor."""
    assert froc("audit", "keygen", place / "auditor").returncode == 0
    copied = Path(shutil.copytree(signed, place / "again.froc-audit"))
    done = froc(*_again(place, copied), "--seed", 7)
    assert done.returncode == 0, done.stderr
    assert "0 differed" in done.stdout
    return copied


def _again(place: Path, bundle: Path) -> list[object]:
    return [
        "audit", "reexecute", bundle, "--key", place / "auditor", "--signed-by", place / "engineer.pub",
        "--rows", 124, "--task", place / "task", "--base", place / "model",
    ]  # fmt: skip


def test_losses_are_found_again(place: Path, froc: Froc, again: Path, signed: Path) -> None:
    keys = ["--key", place / "engineer.pub", "--key", place / "auditor.pub"]
    done = froc("audit", "verify", again, *keys, "--level", 5, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["assurance"] == "reproduced"
    assert " losses of any configuration under any risk differ" in document["reexecution"]
    assert "0 differed" in document["reexecution"]
    assert document["checks"][-1]["name"] == "reexecution"
    assert froc("audit", "verify", signed, *keys[:2], "--level", 5).returncode == 3
    assert froc("audit", "verify", signed, *keys[:2]).returncode == 0
    # a re-execution by somebody who is not trusted is no word
    assert froc("audit", "verify", again, *keys[:2]).returncode == 4
    assert froc(*_again(place, again), "--seed", 8).returncode == 2


def test_the_signed_model_is_measured_again(place: Path, froc: Froc, signed: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(signed, tmp_path / "model.froc-audit"))
    done = froc(*_again(place, copied), "--seed", -3, "--unlearned", place / "run" / "model", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["how"], document["differed"], document["rows"]) == ("model-measured", 0, document["of"])
    # one of two candidates, measured alone
    assert document["assurance"] == "self_attested"
    assert {group["config"] for group in document["groups"]} == {"base", document["groups"][-1]["config"]}


def test_a_model_from_elsewhere_is_not_called_different_before_it_is_measured(
    place: Path, froc: Froc, tmp_path: Path
) -> None:
    out = tmp_path / "external"
    model = ["--unlearned", place / "run" / "model", "--base", place / "model", "--task", place / "task"]
    done = froc("audit", "model", *model, "--budget", 0.9, "--out", out, "--allow-vacuous", "--reopen")
    assert done.returncode in (0, 3), done.stderr
    args = ["--key", place / "engineer", "--out", tmp_path, "--name", "external", "--allow-small-sample"]
    done = froc("audit", "report", out, *args, env=PASSWORD)
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "external.froc-audit"
    done = froc(*_again(place, bundle), "--seed", 7)
    assert done.returncode == 2, done.stderr
    assert "came from another tool and cannot be trained again; give its folder with --unlearned" in " ".join(
        done.stderr.split()
    )
    assert not (bundle / "reexecution.dsse.json").exists()


def test_other_data_or_another_model_is_refused(place: Path, froc: Froc, signed: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(signed, tmp_path / "other.froc-audit"))
    task = Path(shutil.copytree(place / "task", tmp_path / "task"))
    (task / "retain.jsonl").write_text("".join((task / "retain.jsonl").read_text().splitlines(keepends=True)[1:]))
    words = [*_again(place, copied), "--seed", 7]
    for more, word in (
        (["--task", task], "another task"), (["--base", place / "run" / "model"], "another base model"),
        (["--rows", 0], "--rows 0"), (["--role", "boss"], "no role"),
    ):  # fmt: skip
        done = froc(*words, *more)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
    assert not (copied / "reexecution.dsse.json").exists()


def test_losses_that_were_never_measured_are_found_out(place: Path, froc: Froc, tmp_path: Path) -> None:
    """An engineer with a valid key writes losses of nothing: the report verifies, and measuring again says otherwise."""
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    table = pl.read_parquet(run / "losses" / "calibration.parquet")
    false = table.with_columns(
        loss=pl.when(pl.col("risk") == "utility").then(0).otherwise(pl.col("loss")).cast(pl.Int16)
    )
    wrong = int((false["loss"] != table["loss"]).sum())
    assert wrong
    false.write_parquet(run / "losses" / "calibration.parquet")
    plan, seal = (json.loads((run / f"{name}.json").read_text()) for name in ("plan", "seal"))
    claim = Plan.model_validate(plan).claim
    base = pl.read_parquet(run / "losses" / "base.parquet")
    control = Control(base, plan["control"])
    forged = certify(false, [Candidate(**fields) for fields in seal["candidates"]], claim, control=control)
    (run / "certificate.json").write_text(json.dumps(forged))
    args = ["--key", place / "engineer", "--out", tmp_path, "--name", "false"]
    done = froc("audit", "report", run, *args, env=PASSWORD)
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "false.froc-audit"
    assert froc("audit", "verify", bundle, "--key", place / "engineer.pub").returncode == 0
    done = froc(*_again(place, bundle), "--seed", 7, "--rows", 100_000, "--json")
    assert done.returncode == 3, done.stderr
    assert "were not found again" in done.stderr
    document = json.loads(done.stdout)
    rows = len(table) + len(base.filter(pl.col("split") == "calibration"))
    assert (document["differed"], document["rows"], document["assurance"]) == (wrong, rows, "self_attested")
    done = froc("audit", "verify", bundle, "--key", place / "engineer.pub", "--key", place / "auditor.pub")
    assert done.returncode == 3
    assert f"{wrong} differed" in done.stderr
    answers = [json.loads(line)["answer"] for line in (place / "task" / "forget.jsonl").read_text().splitlines()]
    for text in (done.stdout, done.stderr, (bundle / "reexecution.dsse.json").read_text()):
        assert not [answer for answer in answers if f" {answer}" in text]


@pytest.mark.usefixtures("embedded_model")
def test_the_embedded_task_is_measured_again_on_the_questions_of_its_plan(froc: Froc, tmp_path: Path) -> None:
    assert froc("audit", "keygen", tmp_path / "key").returncode == 0
    # so mild a run is not hopeless at so large a budget, and the base model still exceeds it
    done = froc("search", "-b", "0.98", "--trials", 1, "--methods", "grad_diff", "--space", "epochs=1", "--no-sweep",
                "--out", tmp_path / "run", "--json")  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    assert froc("audit", "report", tmp_path / "run", "--key", tmp_path / "key", "--out", tmp_path).returncode == 0
    (bundle,) = tmp_path.glob("*.froc-audit")
    assert json.loads((bundle / "plan.json").read_text())["split"]["label"]
    words = ["audit", "reexecute", bundle, "--key", tmp_path / "key", "--signed-by", tmp_path / "key.pub", "--seed", 1]
    done = froc(*words, "--rows", 124)
    assert done.returncode == 0, done.stderr
    rows = (bundle / "losses.csv").read_text().count("\n") - 1
    assert f"of {rows} losses drawn by seed 1, 0 differed" in done.stdout
