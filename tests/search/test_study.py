"""`--objective froc`: the published score drives the search; everything after the search is as before."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
import pytest

from froc.audit.bundle_files import read_trials, write_trials
from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.errors import InputError, InterruptedRunError, VerificationError
from froc.hyperparameters import Choice, Range
from froc.measuring.metric import Observation
from froc.measuring.model_observation import observe
from froc.measuring.query_losses import MAX_NLL, averaged, evaluate, losses, observe_probe
from froc.models.base import Base
from froc.reporting import landscape
from froc.risk.froc_score import Weighing, against_base
from froc.search.job import Job
from froc.search.optuna.space import build, choose
from froc.search.optuna.study import SAMPLERS, Study
from froc.search.pipeline import run
from froc.search.plan import refuse_other_plan
from froc.search.run_folder import Folder, TrialRecord
from froc.search.settings import Settings
from froc.search.trial.outcome import mean
from froc.search.trial.runner import TrialRunner
from tests.small_model import SMALL

BUDGET = {FORGETTING: 0.3, UTILITY: 0.3}


class Watch:
    """A listener that may stop the run."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.started: list[int] = []
        self.stop_at = stop_at

    def planned(self, plan: Any) -> None:
        self.plan = plan

    def base_measured(self, base: Any, notes: Sequence[str]) -> None:
        self.base = base

    def screening(self, done: int, total: int) -> None:
        self.screened = done

    def trial(self, line: TrialRecord, log: Sequence[TrialRecord], total: int) -> None:
        if line.status == "running":
            self.started.append(line.trial)
            if len(self.started) == self.stop_at:
                raise KeyboardInterrupt

    def calibrating(self, done: int, total: int) -> None:
        self.calibrated = done


def job(base: Base, **overrides: Any) -> Job:
    defaults: dict[str, Any] = {
        "budget": BUDGET, "trials": 5, "methods": ("npo", "grad_diff"), "batch": 16, "parallel": 1
    }  # fmt: skip
    settings = Settings(**(defaults | {"objective": "froc"} | overrides))
    task = embedded_text.task(SMALL, 40)
    view, sealed = split(task, settings.share)
    methods, notes = choose(settings.methods, view)
    space = build(methods, {"lr": (2e-3, 8e-3), "epochs": (2, 4)}, {})
    return Job(base, task, view, sealed, space, settings, tuple(notes))


def trials_in_study(path: Path) -> list[tuple[list[float] | None, dict[str, float], Any]]:
    """What Optuna remembers of each trial: values, constraints, parameters."""
    study = optuna.load_study(study_name="froc", storage=f"sqlite:///{path}")
    assert study.metric_names == ["froc_score"]
    assert len(study.directions) == 1
    return [(trial.values, trial.constraints, trial.params) for trial in study.get_trials(deepcopy=False)]


@pytest.fixture(scope="module")
def finished(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("froc") / "run"
    return out, run(job(base), out, Watch())


def test_it_ends_in_a_certificate(finished: tuple[Path, dict[str, Any]]) -> None:
    out, certificate = finished
    assert certificate["chosen"] in certificate["certified"]
    assert (out / "model" / "config.json").is_file()
    search = json.loads((out / "plan.json").read_text())["search"]
    assert search["objective"] == "froc"
    assert search["weighing"] == {"alpha_unlearn": 0.0, "w_f": 0.5, "w_u": 0.5}


def test_study_holds_the_published_score(base: Base, finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    log = Folder(out).log()
    complete = [line for line in log if line.status == "complete"]
    assert complete
    study = Study(out / "study.db", job(base).space, BUDGET, sampler="tpe", pruner="none", seed=0, objective="froc")
    best = [study.best(line) for line in complete]
    score = dict(
        zip([line.trial for line in best], against_base([line.averages or {} for line in best]).e_r, strict=True)
    )
    for line, (values, constraints, _) in zip(log, trials_in_study(out / "study.db"), strict=True):
        assert values == ([score[line.trial]] if line.status == "complete" else None)
        assert (line.averages is None) == (line.status != "complete")
        search = study.best(line).search
        if search:
            assert constraints == {risk: search[risk] - alpha for risk, alpha in BUDGET.items()}


def test_a_lost_study_is_made_again_with_the_same_values(
    base: Base, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        run(job(base), out, Watch(stop_at=4))
    (out / "study.db").unlink()
    watch = Watch()
    assert run(job(base), out, watch) == finished[1]
    assert watch.started == [3, 4]
    assert trials_in_study(out / "study.db") == trials_in_study(finished[0] / "study.db")


def test_a_field_that_only_the_old_plan_has_is_named() -> None:
    old = {"search": {"trials": 3, "weighing": {"w_f": 0.7}}}
    with pytest.raises(InputError, match=r"search\.weighing differs"):
        refuse_other_plan(old, {"search": {"trials": 3, "parallel": 1, "until": "trials", "shared": False}})


def test_another_objective_is_another_plan(base: Base, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    with pytest.raises(InputError, match=r"search\.objective differs"):
        run(job(base, objective="pareto"), out, Watch())
    with pytest.raises(InputError, match=r"search\.weighing differs"):
        run(job(base, weighing=Weighing(w_f=0.7)), out, Watch())
    with pytest.raises(InputError, match="no objective is called 'sum'"):
        Settings(BUDGET, objective="sum").check()


def test_the_picture_is_drawn_where_trials_carry_averages(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, certificate = finished
    lines = [vars(line) for line in Folder(out).log()]
    names = {path.name for path in landscape.draw(tmp_path / "new", lines, certificate)}
    assert names == {"landscape.png", "pareto.png", "froc_score.png"}
    old = [{key: value for key, value in line.items() if key != "averages"} for line in lines]
    assert {path.name for path in landscape.draw(tmp_path / "old", old, certificate)} == names - {"froc_score.png"}


def test_one_forward_pass_gives_losses_and_averages(bench: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    import froc.measuring.query_losses as module

    real, passes = observe, 0

    def counted(*args: Any) -> Observation:
        nonlocal passes
        passes += 1
        return real(*args)

    monkeypatch.setattr(module, "observe", counted)
    bench.base.restore()
    for probe in bench.probes:
        evaluation = evaluate(probe, observe_probe(bench.base, probe))
        assert passes == 1
        assert evaluation.losses.tolist() == losses(bench.base, probe).tolist()
        assert evaluation.average == bench.start[probe.risk]
        passes = 0
    # the base model knows nearly every answer, and its extraction strength is never above its accuracy
    forgetting = bench.probes[0]
    assert bench.start[FORGETTING].accuracy >= mean(losses(bench.base, forgetting)) - 1e-3 > 0.5


def test_averages_by_hand() -> None:
    """Queries count the same, however long; what could not be measured counts as the worst of its side."""
    hit = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
    logp = np.array([[-1, -1, -1, -5], [-3, 0, 0, 0]], dtype=np.float32)
    seen = Observation(hit, logp, np.array([4, 1]))
    # (8 / 4 + 3) / 2 and (3 / 4 + 0) / 2
    assert vars(averaged(seen, FORGETTING)) == {"loss": 2.5, "accuracy": 0.375}
    logp[1, 0] = np.nan
    assert vars(averaged(seen, FORGETTING)) == {"loss": 1.0, "accuracy": 0.875}
    assert vars(averaged(seen, UTILITY)) == {"loss": (2 + MAX_NLL) / 2, "accuracy": 0.375}
    logp[1, 0] = -np.inf
    assert vars(averaged(seen, FORGETTING)) == {"loss": (2 + MAX_NLL) / 2, "accuracy": 0.375}
    logp[:] = 0.0
    assert repr(averaged(seen, UTILITY).loss) == "0.0"
    logp[0, 0] = -0.0123456
    assert averaged(seen, UTILITY).loss == 0.001543  # four digits of 0.00154320


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_the_objective_and_goes_on_from_the_log(sampler: str, tmp_path: Path) -> None:
    """No training: a made-up method whose forgetting grows and whose utility falls with x; a third is pruned."""
    spaces: dict[str, Any] = {"one": {"x": Range(0.0, 1.0)}, "two": {"y": Range(0.0, 1.0), "z": Range(1, 4)}}
    listed = Choice((0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    grid: dict[str, Any] = {"one": {"x": listed}, "two": {"y": listed, "z": Range(1, 4)}}
    space = grid if sampler == "grid" else spaces
    limits = {FORGETTING: 0.6, UTILITY: 0.6}
    keywords: dict[str, Any] = {"sampler": sampler, "pruner": "median", "seed": 1, "objective": "froc"}
    study = Study(tmp_path / "study.db", space, limits, **keywords)
    study.resume([])
    log: list[TrialRecord] = []
    for number in range(16):
        method, params = study.ask(number)
        log.append(_made(number, method, params))
        study.pruner(method).begin()(log[-1].rungs, ())
        study.tell(log[-1])
    kept = trials_in_study(tmp_path / "study.db")
    assert [values for values, _, _ in kept] == [[_value(line)] if line.averages else None for line in log]
    following = study.ask(16)
    (tmp_path / "study.db").unlink()
    again = Study(tmp_path / "study.db", space, limits, **keywords)
    again.resume(log)
    assert trials_in_study(tmp_path / "study.db") == kept
    assert again.ask(16) == following


def _value(line: TrialRecord) -> float:
    return float(against_base([line.averages or {}]).e_r[0])


def _made(number: int, method: str, params: dict[str, Any]) -> TrialRecord:
    x = float(next(iter(params.values())))
    line = TrialRecord(number, 1, f"c{number:04d}", method, params, number, "", "", ended="", steps=3, seconds=0.1)
    means = {FORGETTING: 1.0 - x, UTILITY: x * x}
    line = replace(line, rungs=[[1, means]])
    if number % 3 == 2:
        return replace(line, status="pruned")
    base = {"base_loss": 0.01, "base_accuracy": 1.0}
    averages = {
        FORGETTING: {"loss": 0.01 + 5 * x, "accuracy": 1.0 - x, **base},
        UTILITY: {"loss": 0.01 + x * x, "accuracy": 1.0 - x * x, **base},
    }
    return replace(line, status="complete", search=means, averages=averages)


def test_lines_of_older_runs_still_read(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (finished[0] / "trials.jsonl").read_text().splitlines()]
    for line in lines:
        del line["averages"], line["variants"]
    folder = Folder(tmp_path)
    folder.trials.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line.averages for line in folder.log()] == [None] * len(lines)
    bundled = write_trials(lines).replace(b',"averages":null', b"").replace(b'"averages":null,', b"")
    assert b"averages" not in bundled
    assert [line.averages for line in read_trials(bundled)] == [None] * len(lines)


def test_a_bundle_takes_averages_as_decimals_and_nothing_else(finished: tuple[Path, dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in (finished[0] / "trials.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["averages"])
    (read,) = read_trials(write_trials([line]))
    assert read.averages is not None
    kept = {
        risk: {name: float(value) for name, value in vars(averages).items()} for risk, averages in read.averages.items()
    }
    assert kept == line["averages"]
    for name, bad in (
        ("loss", float("nan")),
        ("loss", -1.0),
        ("accuracy", 1.5),
        ("base_accuracy", float("inf")),
        ("note", "text"),
    ):
        spoiled = {**line, "averages": {FORGETTING: {**line["averages"][FORGETTING], name: bad}}}
        with pytest.raises(VerificationError, match="averages is not as it must be"):
            read_trials(write_trials([spoiled]))


def test_only_search_queries_are_averaged(base: Base, finished: tuple[Path, dict[str, Any]]) -> None:
    """The averages belong to the very queries of the search losses: accuracy bounds extraction strength from above."""
    out, _ = finished
    table = pl.read_parquet(out / "losses" / "search.parquet")
    view = job(base).view
    assert set(table["query"]) == {query.id for queries in view.queries.values() for query in queries}
    for line in Folder(out).log():
        if line.search and line.averages:
            assert line.averages[FORGETTING]["accuracy"] >= line.search[FORGETTING] - 1e-3
