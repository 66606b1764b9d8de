"""Removals one after the other: fresh queries of earlier requests, the chain of runs, what reports say of it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest

from froc import hashing
from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.data import opening_ledger
from froc.data.splits import keyed_queries, split
from froc.data.task import EARLIER, FORGETTING, UTILITY, Row, Task
from froc.data.tasks import embedded_text, folder
from froc.errors import InputError
from froc.models.base import Base
from froc.reporting import sustainability
from froc.search.continual.chain import read
from tests.commands import Commands
from tests.small_model import SMALL

TASKS = tuple(embedded_text.task(SMALL, questions=k, request=k) for k in (1, 2, 3))


def write(task: Task, place: Path) -> Path:
    place.mkdir()

    def rows(name: str, values: Sequence[Row]) -> None:
        lines = [json.dumps({"question": row.question, "answer": row.answer, "group": row.group}) for row in values]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    rows("forget", task.forget)
    rows("retain", task.retain)
    rows("forget_queries", task.queries[FORGETTING])
    rows("retain_queries", task.queries[UTILITY])
    (place / "task.toml").write_text(
        f'name = "{place.name}"\ntemplate = "{task.template}"\n[units]\nutility = "query"\n', encoding="utf-8"
    )
    return place


class Chain:
    """Runs on task folders and the small model, through the command line."""

    def __init__(self, commands: Commands, place: Path, base: Base) -> None:
        self._commands, self.place, self.model = commands, place, place / "model"
        base.restore()
        model: Any = base.model
        model.save_pretrained(self.model)
        base.tokenizer.save_pretrained(self.model)
        self.tasks = [write(task, place / f"request-{k}") for k, task in enumerate(TASKS, start=1)]

    def froc(self, *words: object) -> CompletedProcess[str]:
        figures = "--after" in words
        return self._commands.run([str(word) for word in words], cwd=self.place, figures=figures)

    def search(self, number: int, out: Path, *more: object) -> CompletedProcess[str]:
        return self.froc(
            "search", "-b", 0.45, "--task", self.tasks[number - 1], "--model", self.model, "--trials", 2, "--methods",
            "npo,grad_diff", "--space", "lr=1e-3:4e-3", "--space", "epochs=4:8", "--batch", 16, "--candidates", 3,
            "--executor", "inline", "--out", out, "--quiet", *more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def chain(base: Base, commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Three requests; the openings are counted for all tests of this file."""
    place = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        made = Chain(commands, place, base)
        first, second, _ = made.tasks
        first_run, second_run, third_run = (place / f"run-{k}" for k in (1, 2, 3))
        for done in (
            made.search(1, first_run, "--later", 2),
            made.search(2, second_run, "--later", 1, "--after", first_run, "--earlier", first),
            made.search(
                3, third_run, "--after", second_run, "--earlier", second, "--earlier", first, "-b", "earlier=0.5"
            ),
        ):
            assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(autouse=True)
def _state(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    if chain is not None:
        monkeypatch.setenv("FROC_STATE", str(chain.place / "state"))


def document(place: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place / name).read_text(encoding="utf-8"))
    return content


def test_every_earlier_request_is_certified(chain: Chain) -> None:
    two, three = (
        document(chain.place / "run-2", "certificate.json"),
        document(chain.place / "run-3", "certificate.json"),
    )
    assert two["budget"] == {FORGETTING: 0.45, UTILITY: 0.45, EARLIER: 0.45}
    assert three["budget"] == {FORGETTING: 0.45, UTILITY: 0.45, "earlier-1": 0.5, "earlier-2": 0.5}
    assert three["chosen"] in three["certified"]
    questions = []
    for k, risk in ((1, FORGETTING), (2, EARLIER), (3, "earlier-1")):
        table = pl.read_parquet(chain.place / f"run-{k}" / "losses" / "calibration.parquet")
        known = _by_id(chain, k)
        questions.append({known[name] for name in table.filter(pl.col("risk") == risk)["query"]})
    # three runs ask of the first request's removal, each with queries of its own
    assert all(questions)
    assert not questions[0] & questions[1]
    assert not (questions[0] | questions[1]) & questions[2]


def _by_id(chain: Chain, k: int) -> dict[str, str]:
    """Id in the k-th run -> question, of the first request's queries."""
    first, task = (folder.load(chain.tasks[n - 1])[0] for n in (1, k))
    key = bytes.fromhex(
        hashing.hmac_sha256(task.key, "renamed", document(chain.place / f"run-{k}", "plan.json")["split"]["label"])
    )
    return {hashing.hmac_sha256(key, q.id)[:16]: q.row.question for q in keyed_queries(first, FORGETTING)}


def test_the_plan_names_the_chain(chain: Chain) -> None:
    plans = [document(chain.place / f"run-{k}", "plan.json") for k in (1, 2, 3)]
    assert "after" not in plans[0]
    after = plans[2]["after"]
    assert after["tasks"] == [plan["task"]["digest"] for plan in plans[:2]]
    assert after["original"]["digest"] == plans[0]["model"]["digest"]
    assert after["measured"]
    assert [request["later"] for request in after["requests"]] == [2, 1]
    assert read(chain.place / "run-2").document == {key: after[key] for key in after if key != "measured"}
    # the digest of a task does not hang on what was removed before it
    assert plans[1]["task"]["digest"] == folder.load(chain.tasks[1])[0].digest


def test_the_record_grows_from_run_to_run(chain: Chain) -> None:
    two, three = (document(chain.place / f"run-{k}", "sustainability.json") for k in (2, 3))
    assert [row["removals"] for row in two["removals"]] == [1, 2]
    assert [row["removals"] for row in three["removals"]] == [1, 2, 3]
    assert three["removals"][0] == two["removals"][0]
    assert "not certified" in three["says"]
    last, before = three["removals"][2], three["removals"][1]
    assert set(last["forgetting"]) == {"1", "2", "3"}
    # request 3 is there before its removal, and gone after
    assert before["forgetting"]["3"] > 0.7 > last["forgetting"]["3"]
    assert 0 <= last["utility"] <= 1
    assert set(last["certificate"]["risks"]) == {FORGETTING, UTILITY, "earlier-1", "earlier-2"}
    for k in (2, 3):
        assert (chain.place / f"run-{k}" / "figures" / "sustainability.png").stat().st_size > 20_000
    assert not (chain.place / "run-1" / "sustainability.json").exists()


def test_a_report_on_a_later_request_verifies(chain: Chain, tmp_path: Path) -> None:
    keys.keygen(tmp_path / "key", None)
    for k, words in ((2, "how much of what was removed before"), (3, "how much of what request 2 removed")):
        run = chain.place / f"run-{k}"
        bundle = evidence.build(run, tmp_path, tmp_path / "key", small=True)
        result = verification.verify(bundle, keys=[tmp_path / "key.pub"], model=run / "model")
        assert result.verdict == "PASS"
        page = (bundle / "report.html").read_text(encoding="utf-8")
        assert words in page
        assert f"{k - 1} request{'s' if k > 2 else ''} removed earlier, measured again here" in page
        assert "after" in result.report


def test_a_later_run_is_measured_again_after_the_same_run(chain: Chain, tmp_path: Path) -> None:
    keys.keygen(tmp_path / "key", None)
    first, second, third = (chain.place / f"run-{k}" for k in (1, 2, 3))
    report = ["audit", "report", third, "--key", tmp_path / "key", "--out", tmp_path, "--name", "third"]
    # parts that were held back for later are small
    assert "--allow-small-sample" in chain.froc(*report).stderr
    assert chain.froc(*report, "--allow-small-sample").returncode == 0
    bundle = tmp_path / "third.froc-audit"
    words = [
        "audit", "reexecute", bundle, "--key", tmp_path / "key", "--signed-by", tmp_path / "key.pub", "--seed", 7,
        "--rows", 124, "--task", chain.tasks[2], "--quiet",
    ]  # fmt: skip
    earlier = ["--earlier", chain.tasks[0], "--earlier", chain.tasks[1]]
    for more, word in (
        (earlier, "goes on after another run"),
        (["--after", first, *earlier], "not the run that the report goes on after"),
        (["--after", second], "goes back to the request"),
        (["--after", second, *earlier, "--task", chain.tasks[1]], "is also"),
    ):
        done = chain.froc(*words, *more)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
    done = chain.froc(*words, "--after", second, *earlier)
    assert done.returncode == 0, done.stderr
    assert " losses drawn by seed 7, 0 differed" in done.stdout
    assert "0 differed" in done.stdout


def test_not_measuring_is_said_everywhere(chain: Chain, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = chain.search(2, run, "--after", chain.place / "run-1", "--no-earlier", "--reopen")
    assert done.returncode == 0, done.stderr
    certificate = document(run, "certificate.json")
    assert set(certificate["budget"]) == {FORGETTING, UTILITY}
    assert "the earlier removal was not measured" in certificate["warnings"][0]
    assert not document(run, "plan.json")["after"]["measured"]
    shown = chain.froc("show", run)
    assert "not measured" in shown.stderr + shown.stdout
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(run, tmp_path, tmp_path / "key")
    assert verification.verify(bundle, keys=[tmp_path / "key.pub"]).verdict == "PASS"
    assert "Earlier removals were not measured" in (bundle / "report.html").read_text(encoding="utf-8")


def test_what_does_not_fit_the_chain_is_refused(chain: Chain, tmp_path: Path) -> None:
    first, second, third = chain.tasks
    first_run, second_run = chain.place / "run-1", chain.place / "run-2"
    changed = write(replace(TASKS[0], forget=TASKS[0].forget[:-1]), tmp_path / "request-1")
    for words, says in (
        (["--after", first_run], "give its task folder with --earlier DIR"),
        (["--after", first_run, "--earlier", changed], "the digest differs"),
        (["--after", first_run, "--earlier", first, "--earlier", third], "is no request that"),
        (["--after", second_run, "--earlier", second], "goes back to the request request-1"),
        (["--after", second_run, "--earlier", second, "--no-earlier"], "contradict each other"),
        (["--after", chain.place], "is no run folder"),
        (["--earlier", first], "give that run: --after RUN"),
        (["--budget", "earlier=0.1"], "go on after a run"),
    ):
        done = chain.search(3 if second_run in words else 2, tmp_path / "run", *words)
        assert done.returncode == 2, (words, done.stderr)
        assert says in done.stderr, (words, done.stderr)
    assert not (tmp_path / "run").exists()
    done = chain.search(2, first_run, "--after", first_run, "--earlier", first)
    assert "is the run to go on after" in done.stderr


def test_a_run_without_a_chosen_model_is_no_start(chain: Chain, tmp_path: Path) -> None:
    for name, certificate, says in (
        ("unfinished", None, "has no certificate yet"),
        ("nothing", {"chosen": None}, "certified nothing"),
        ("lost", {"chosen": "c0000"}, "has lost its model"),
    ):
        run = tmp_path / name
        run.mkdir()
        (run / "plan.json").write_bytes((chain.place / "run-1" / "plan.json").read_bytes())
        if certificate is not None:
            (run / "certificate.json").write_text(json.dumps(certificate), encoding="utf-8")
        with pytest.raises(InputError, match=says):
            read(run)


def test_parts_that_another_search_may_have_opened_are_not_fresh(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    task = folder.load(chain.tasks[0])[0]
    monkeypatch.setenv("FROC_STATE", str(chain.place / "other"))
    opening_ledger.record(split(task, 0.7)[1].counted, "another plan", "another seal", 1, False)
    with pytest.raises(InputError, match="opened by another search"):
        read(chain.place / "run-1").past([chain.tasks[0]], 0, None)


def test_the_curve_shows_a_bound_for_what_a_run_certified_and_no_other(chain: Chain, tmp_path: Path) -> None:
    record = document(chain.place / "run-3", "sustainability.json")
    risks = [[sustainability.risk_of(row, number) for number in (1, 2, 3)] for row in record["removals"]]
    assert risks == [[FORGETTING, "", ""], [EARLIER, FORGETTING, ""], ["earlier-1", "earlier-2", FORGETTING]]
    for row, names in zip(record["removals"], risks, strict=True):
        assert {name for name in names if name} == set(row["certificate"]["risks"]) - {UTILITY}
    # without a first base model at hand, and where earlier requests were not measured
    for row in record["removals"]:
        row["utility"] = None
    del record["removals"][2]["forgetting"]["1"]
    del record["removals"][2]["certificate"]["risks"]["earlier-1"]
    sustainability.draw_sustainability(tmp_path / "one.png", record)
    assert (tmp_path / "one.png").stat().st_size > 20_000
