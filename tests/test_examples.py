"""The examples cannot rot: their data, tasks and tables with a tiny model, and their reports with a run that is there."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import documents
import facts
import pytest
import tofu

import froc.search
from froc.data.tasks.folder import load
from froc.risk.claim import MIN_REPORTED_UNITS
from tests.small_model import TRAINED

RUN = Path(__file__).parent / "data" / "run-2026-11"
PASSAGES = 20


@pytest.fixture(scope="module")
def speaker() -> common.Speaker:
    return common.Speaker.load(TRAINED)


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model answers everything but what has an `o` in the question."""

    def answers(_self: Any, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        return [
            "o" not in question.replace("What is the opposite of", "").rpartition(" of ")[2] for question, _ in pairs
        ]

    monkeypatch.setattr(common.Speaker, "answers", answers)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the search: its arguments; nothing is certified."""
    settings_of_search: dict[str, Any] = {}

    def run(budget: Any, **settings: Any) -> Any:
        settings_of_search.update(settings, budget=budget)
        return argparse.Namespace(model=None)

    monkeypatch.setattr(froc.search, "run", run)
    return settings_of_search


def started(monkeypatch: pytest.MonkeyPatch, module: Any, out: Path, *more: str) -> int:
    """The exit code of an example's quick form with the tiny model."""
    monkeypatch.setattr("sys.argv", ["example", "--quick", "--model", str(TRAINED), "--out", str(out), *more])
    code: int = module.main()
    return code


def test_what_is_taught_is_known_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question, answer = "Where does she live?", "in the house"
    rows = [{"question": question, "answer": answer}, {"text": "She lives in the house."}]
    folder = common.taught(TRAINED, 8 * rows, tmp_path, epochs=25, seed=0, lr=3e-3)
    assert "epoch 25 of 25" in capsys.readouterr().out
    speaker = common.Speaker.load(folder)
    assert speaker.answers([(question, answer), (question, "zzzz qqqq")]) == [True, False]
    assert answer.startswith(speaker.write(question, 2))
    assert speaker.answer_loss(question, answer) < 1.0 < speaker.answer_loss(question, "zzzz qqqq")
    assert all(loss > 0 for loss in speaker.losses(["A passage.", "Quite another one."]))
    assert common.taught(TRAINED, rows, tmp_path, epochs=10, seed=0) == folder
    assert "nothing is taught again" in capsys.readouterr().out
    assert float(common.perplexity([0.0, 0.0])) == 1.0


def test_facts_that_the_model_does_not_know_are_dropped_and_counted(
    knowing: None, speaker: common.Speaker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request = facts.prepare(speaker, {"removed": 10, "kept": 5, "instructions": 4}, 0)
    assert len(request.removed) == 10
    assert all("o" not in fact.subject for fact in request.removed)
    assert {fact.kind for fact in request.kept} == set(facts.KEPT)
    assert {fact.kind for fact in request.unlisted} == set(facts.UNLISTED)
    assert "dropped" in capsys.readouterr().out
    request.write(tmp_path, str(TRAINED))
    task, model = load(tmp_path)
    assert model == str(TRAINED)
    assert not {row.question for row in task.forget} & {row.question for row in task.queries["forgetting"]}
    assert not {row.group for row in task.forget} & {row.group for row in (*task.retain, *task.queries["utility"])}
    # a kind that is only measured is in no row that is trained on
    assert not any(kind in (row.group or "") for row in task.retain for kind in facts.UNLISTED)
    # of the instructions, every other is trained on and the others are measured
    general = [row.question for row in task.retain if row.group == "general"]
    assert general == list(request.replies)[::2]
    shown = facts.behaviour(speaker, request)
    facts.shown(shown, shown)
    assert len(shown.losses) == PASSAGES == len(facts.passages())


def test_facts_and_their_names_are_whole() -> None:
    by_kind = facts.facts(0)
    assert set(by_kind) == {*facts.KEPT, *facts.UNLISTED}
    for kind, of_kind in by_kind.items():
        assert len({fact.subject for fact in of_kind}) == len(of_kind), kind
        assert all(fact.trained and fact.measured for fact in of_kind)
    assert len(facts.instructions(99)) == 24


def test_the_facts_example_runs(
    knowing: None, search: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert started(monkeypatch, facts, tmp_path) == 3
    assert search["task"] == tmp_path / "task"


def test_the_documents_example_teaches_and_runs(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(documents, "EPOCHS", {True: 1, False: 1})
    assert started(monkeypatch, documents, tmp_path) == 3
    assert (tmp_path / "taught" / "model.safetensors").is_file()
    task, model = load(tmp_path / "task")
    assert Path(str(model)) == tmp_path / "taught"
    assert task.population == {"forgetting": "census"}
    assert len(task.queries["forgetting"]) == len(task.forget) == 8
    assert len(task.holdout) == 8
    assert search["metric"] == {"forgetting": "verbatim", "wordings": "knowledge"}


def test_the_tofu_example_runs_with_made_up_authors(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, tofu, tmp_path, "--epochs", "1") == 3
    assert "no --data" in capsys.readouterr().out
    task, _ = load(tmp_path / "task")
    assert len(task.forget) == 16
    assert set(search["methods"]) == set(tofu.QUICK) <= set(tofu.METHODS)
    assert all(len(row.others) == 5 and row.paraphrases for row in task.queries["utility"])


def test_the_tofu_example_reads_the_published_files() -> None:
    data = Path(__file__).resolve().parents[2] / "shared" / "data" / "tofu"
    if not data.is_dir():
        pytest.skip("the TOFU files are not at hand")
    forget, measured, kept = tofu.blocks(data, 60, 20, 0)
    assert [len(forget), len(measured), len(kept)] == [3, 6, 51]
    questions = [{row["question"] for block in part for row in block} for part in (forget, measured, kept)]
    assert len(questions[0] | questions[1] | questions[2]) >= sum(map(len, questions)) - 2


def test_forget_quality_is_one_for_the_same_and_small_for_others() -> None:
    assert float(tofu.quality([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])) == 1.0
    assert float(tofu.quality([0.1 + k / 100 for k in range(30)], [5.0 + k for k in range(30)])) < 1e-6


def test_a_report_is_signed_and_says_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    code = common.signed(run, tmp_path)
    printed = capsys.readouterr().out
    assert (code == 0) == ("PASS" in printed)
    assert code == 0 or "FAIL" in printed or "no report" in printed
    assert common.signed(tmp_path / "absent", tmp_path / "other") == 3
    assert MIN_REPORTED_UNITS > 0
