"""`--like`: what an earlier search looked at is never sealed for a search that learns from it; explicit options win."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.data.splits import EarlierSplit, draw_parts, looked_at, split
from froc.data.task import FORGETTING, UTILITY, Query, Row, Task
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.models.base import Base
from froc.search import prior_run
from froc.search.build import UNSEEDED_AT_DEFAULT
from froc.search.pipeline import run
from froc.search.plan import refuse_other_plan
from froc.search.run_folder import Folder
from froc.search.settings import Settings, settings_of
from tests.search.small_search import BUDGET, Watch, job
from tests.small_model import SMALL

RESULTS = ("certificate.json", "seal.json", "diagnostics.json", "losses", "model")
"""Where calibration losses, and what they chose, lie in a run folder."""


def rows_task(seed: int = 0, unit: str = "query", count: int = 300, extra: int = 0) -> Task:
    """Queries of a file, in groups of three; `extra` of them that no other such task has."""
    rows = [Row(f"{pool} {i}?", f"answer {i}", group=f"{pool} {i // 3}") for pool in "fu" for i in range(count)]
    more = [Row(f"new {i}?", f"answer {i}", group=f"new {i // 3}") for i in range(extra)]
    queries = {FORGETTING: (*rows[:count], *more), UTILITY: tuple(rows[count:])}
    units: Any = dict.fromkeys(queries, unit)
    return Task("rows", (Row("a", "b"),), (Row("c", "d"),), queries, units, split_seed=seed)


def like(task: Task, share: float, **more: Any) -> dict[str, Any]:
    """A plan's entry of a run that searched a task."""
    entry = {
        "task": task.digest,
        "split_seed": task.split_seed,
        "share": share,
        "later": 0,
        "questions": task.questions,
    }
    return {"splits": [entry], "options": {}, "plan": "", "trials": "", **more}


def texts(queries: tuple[Query, ...]) -> set[str]:
    return {query.row.question for query in queries}


@pytest.mark.parametrize(("seed", "share", "unit"), [(0, 0.5, "query"), (7, 0.2, "query"), (7, 0.3, "group")])
def test_nothing_that_the_earlier_search_looked_at_is_sealed(seed: int, share: float, unit: str) -> None:
    earlier, now = rows_task(seed, unit), rows_task(3, unit, extra=90)
    settings = Settings(BUDGET, like=like(earlier, share))
    looked = split(earlier, share)[0].queries
    plain = split(now, settings.share)
    # without the earlier split some would be sealed
    assert texts(looked[FORGETTING]) - texts(plain[0].queries[FORGETTING])
    before = prior_run.splits_of(settings, now)
    view, sealed = split(now, settings.share, before=before)
    prior_run.refuse_overlap(settings, now, [earlier])
    for risk in (FORGETTING, UTILITY):
        opened = sealed.open({"calibration": sealed.digests, "candidates": []})[risk]
        assert not texts(looked[risk]) & texts(opened)
        assert texts(looked[risk]) <= texts(view.queries[risk])
        assert len(opened) + len(view.queries[risk]) == len(now.queries[risk])


def test_rows_that_the_earlier_task_had_not_are_moved_as_often() -> None:
    """Else the sealed queries would hold more of the new rows than the population that the claim is about."""
    now = rows_task(3, extra=3000, count=3000)
    moved = looked_at(now, FORGETTING, (EarlierSplit(7, 0.3),))
    units = {query.unit: query.row.question for query in draw_parts(now, FORGETTING, 1e-9, 0)[1]}
    new = sum(units.get(unit, "").startswith("new") for unit in moved)
    assert abs(new / 3000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 3000)
    assert abs((len(moved) - new) / 3000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 3000)


def test_what_cannot_be_told_or_moved_is_refused() -> None:
    earlier, now = rows_task(7), rows_task(3, extra=90)
    settings = Settings(BUDGET, like=like(earlier, 0.3))
    with pytest.raises(InputError, match="--like-task DIR"):
        prior_run.refuse_overlap(settings, now, [])
    swapped = replace(now, queries={FORGETTING: now.queries[UTILITY], UTILITY: now.queries[FORGETTING]})
    prior_run.refuse_overlap(settings, swapped, [earlier])
    # the earlier search looked at whole groups
    grouped = replace(earlier, units=dict.fromkeys(earlier.units, "group"))
    with pytest.raises(InputError, match="would be sealed now were looked at"):
        prior_run.refuse_overlap(settings, now, [grouped])


@pytest.mark.parametrize(("before", "unit"), [("query", "group"), ("group", "query")])
def test_the_same_rows_in_another_unit_are_refused(before: str, unit: str) -> None:
    """A task's digest does not hold its units, so the earlier search's own are taken from its plan."""
    earlier, now = rows_task(7, before), rows_task(3, unit)
    assert earlier.digest == replace(now, split_seed=7).digest
    entry = like(earlier, 0.3)
    entry["splits"][0]["units"] = dict(earlier.units)
    with pytest.raises(InputError, match="would be sealed now were looked at"):
        prior_run.refuse_overlap(Settings(BUDGET, like=entry), now, [])
    entry["splits"][0]["units"] = dict(now.units)
    prior_run.refuse_overlap(Settings(BUDGET, like=entry), now, [])


def test_what_the_earlier_search_trained_on_is_not_sealed() -> None:
    """Its search losses follow from these rows, and with them the configurations that are tried first."""
    earlier, now = rows_task(7), rows_task(3)
    settings = Settings(BUDGET, like=like(earlier, 0.3))
    prior_run.refuse_overlap(settings, now, [earlier])
    trained_on = now.queries[FORGETTING][-40:]
    trained = replace(earlier, forget=(*earlier.forget, *trained_on))
    known = {**like(earlier, 0.3)}
    known["splits"][0]["task"] = trained.digest
    with pytest.raises(InputError, match="rows that the earlier search trained on"):
        prior_run.refuse_overlap(Settings(BUDGET, like=known), now, [trained])


def test_queries_that_are_drawn_anew_need_no_moving() -> None:
    earlier, now = embedded_text.task(SMALL, 1), embedded_text.task(SMALL, 2)
    settings = Settings(BUDGET, like=like(earlier, 0.5))
    assert prior_run.splits_of(settings, now) == ()
    prior_run.refuse_overlap(settings, now, [])
    # the same draw is the same queries
    assert prior_run.splits_of(settings, earlier) == (EarlierSplit(0, 0.5),)
    # a search like another one draws its own
    assert "like" in UNSEEDED_AT_DEFAULT


@pytest.fixture(scope="module")
def finished(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier search, and in place of every file that calibration made something that nobody can read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(tmp_path_factory.mktemp("state")))
        out = tmp_path_factory.mktemp("earlier") / "run"
        made = job(base, questions=31, trials=4, sweep=False)
        options = prior_run.written_options(replace(made.settings, confidence=0.8), {"model": "here"})
        run(replace(made, options=options), out, Watch())
    for name in RESULTS:
        path = out / name
        for file in (path,) if path.is_file() else filter(Path.is_file, path.rglob("*")):
            file.write_bytes(b"\0")
    return out


def taken(finished: Path, tmp_path: Path, **overrides: Any) -> Settings:
    prior = prior_run.read(finished, tmp_path / "run")
    made = Settings(**{**prior.values({"budget": BUDGET}, set(overrides)), **overrides, "like": prior.document})
    return prior_run.with_first_trials(prior, made, job_space())


def job_space() -> Any:
    from froc.search.optuna.space import build

    return build(["npo", "grad_diff"], {"lr": (2e-3, 8e-3), "epochs": (2, 4)}, {})


def test_options_and_best_trials_are_taken_and_nothing_of_calibration_is_read(finished: Path, tmp_path: Path) -> None:
    settings = taken(finished, tmp_path)
    assert (settings.confidence, settings.trials, settings.sweep, settings.methods) == (
        0.8,
        4,
        False,
        ("npo", "grad_diff"),
    )
    log = [record for record in Folder(finished).log() if record.status == "complete"]
    worst = {record.trial: max((record.search or {}).values()) for record in log}
    best = min(log, key=lambda record: (worst[record.trial], record.trial))
    assert prior_run.first_trials(settings.like)[0] == (best.method, best.params)
    # explicit options win
    assert taken(finished, tmp_path, confidence=0.95).confidence == 0.95
    prior = prior_run.read(finished, tmp_path / "run")
    assert "confidence 0.8" in prior.sentence(set())
    assert "confidence" not in prior.sentence({"confidence"})
    assert prior_run.places(prior, model=None)["model"] == "here"
    assert prior_run.places(prior, model="there")["model"] == "there"


def test_without_a_file_of_options_the_plan_tells_them(finished: Path, tmp_path: Path) -> None:
    plan = Folder(finished).require_plan()
    (tmp_path / "older").mkdir()
    for name in ("plan.json", "trials.jsonl"):
        (tmp_path / "older" / name).write_bytes((finished / name).read_bytes())
    settings = taken(tmp_path / "older", tmp_path)
    assert (settings.confidence, settings.trials, settings.budget) == (0.9, 4, plan["budget"])
    (tmp_path / "older" / "plan.json").write_text(json.dumps({**plan, "after": {}}), encoding="utf-8")
    with pytest.raises(InputError, match="calibration losses chose its base model"):
        prior_run.read(tmp_path / "older", tmp_path / "run")


def test_a_search_like_another_begins_with_its_best_and_says_so_in_its_plan(
    base: Base, finished: Path, tmp_path: Path
) -> None:
    settings = taken(finished, tmp_path, trials=3)
    made = job(base, questions=32, trials=3, sweep=False, like=settings.like)
    out = tmp_path / "run"
    run(replace(made, options=prior_run.written_options(settings, {"model": "here"})), out, Watch())
    log = Folder(out).log()
    first = prior_run.first_trials(settings.like)
    assert [(record.method, record.params) for record in log[: len(first)]] == first[:3]
    plan = Folder(out).require_plan()
    assert plan["like"] == json.loads(json.dumps(settings.like))
    assert settings_of(plan, {}).like == plan["like"]
    # a run that goes on has it from its own plan
    own = prior_run.read(tmp_path / "gone", out)
    assert (own.document, own.places) == (plan["like"], {"model": "here"})
    with pytest.raises(InputError, match="like differs"):
        refuse_other_plan(plan, {key: value for key, value in plan.items() if key != "like"})
