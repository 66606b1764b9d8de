"""Candidates that cost no training, pruners that compare by rung or by query, packs and grids through whole searches."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from froc.audit import bundle, keys
from froc.data.task import FORGETTING, UTILITY
from froc.errors import InputError
from froc.hyperparameters import Choice, Range, spaces
from froc.measuring.measurement import measurement
from froc.measuring.query_losses import losses
from froc.models.base import Base
from froc.plugins import find, names
from froc.search.optuna.pruning import PRUNERS
from froc.search.optuna.space import build, first_configs, size
from froc.search.optuna.study import Study
from froc.search.pipeline import run
from froc.search.run_folder import TrialRecord
from froc.search.sealed import ranking
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.sweep import MAX_MIX, MAX_RATIO, NO_SWEEP, Effort, MeasuredPoint, Sweep, SweepPoint
from froc.training.method import Method
from tests.search.small_search import BUDGET, Watch, job

LINE = TrialRecord(
    0, 1, "c0000", "npo", {"lr": 0.1}, 0, "", "", status="complete", search={FORGETTING: 0.3, UTILITY: 0.0}
)


class Slope(Sweep):
    """A mix whose forgetting is 2 - share and whose utility loss is share, in units of the budgets, at every stop."""

    def __init__(self, effort: Effort, falls: float = 2.0) -> None:
        no_model: Any = None
        super().__init__(no_model, (), BUDGET, effort)
        self.looked: list[tuple[int, float]] = []
        self._falls = falls

    def stop(self, step: int) -> SweepPoint:
        return self._explore(step)

    def _look(self, step: int, share: float) -> SweepPoint:
        self.looked.append((step, share))
        return SweepPoint(step, share, {}, {}, {FORGETTING: max(0.0, self._falls - share), UTILITY: share})

    def _whole(self, point: SweepPoint) -> MeasuredPoint:
        return MeasuredPoint(point.step, point.mix, {})

    def _back(self, step: int, share: float) -> None:
        pass


def test_the_mix_is_bisected_to_where_the_risks_meet() -> None:
    sweep = Slope(Effort(looks=6, kept=3), falls=1.5)
    best = sweep.stop(10)
    assert abs(best.mix - 0.75) <= 1 / 32
    assert sweep.looked[:3] == [(10, 1.0), (10, 0.5), (10, 0.75)]
    assert all(0 <= share <= MAX_MIX for _, share in sweep.looked)
    further = Slope(Effort(looks=4, kept=3), falls=2.4)
    assert further.stop(10).mix > 1.0


def test_what_is_far_over_budget_is_looked_at_once() -> None:
    sweep = Slope(Effort(looks=4, kept=3), falls=MAX_RATIO + 1.5)
    sweep.stop(5)
    assert sweep.looked == [(5, 1.0)]
    assert [(point.step, point.mix) for point in sweep.end(9)] == [(9, 1.0)]


def test_the_end_stands_first_and_the_best_follow() -> None:
    sweep = Slope(Effort(looks=4, kept=3), falls=1.5)
    sweep.stop(5)
    points = sweep.end(9)
    assert (points[0].step, points[0].mix) == (9, 1.0)
    assert len(points) == 4
    assert len({(point.step, point.mix) for point in points}) == 4
    assert all(abs(point.mix - 0.75) < 0.26 for point in points[1:])


def test_no_sweep_looks_at_stops_as_they_are() -> None:
    sweep = Slope(NO_SWEEP)
    sweep.stop(5)
    assert [(point.step, point.mix) for point in sweep.end(9)] == [(9, 1.0)]
    assert sweep.looked == [(5, 1.0), (9, 1.0)]


@pytest.mark.parametrize(("epochs", "looks"), [(9, 4), (3, 1)])
def test_a_variant_is_its_checkpoint_mixed_and_comes_back_by_training_again(
    base: Base, bench: TrialRunner, monkeypatch: pytest.MonkeyPatch, epochs: int, looks: int
) -> None:
    """The losses written down are those of (1 - a) theta_0 + a theta_u at that stop; retraining finds the same.

    Also where training is so short that each stop is looked at once: a stop is what the model was there, not its end.
    """
    from froc.search.trial.outcome import mean

    monkeypatch.setattr(bench, "limits", dict.fromkeys(bench.limits, 0.1 if looks > 1 else 0.6))
    spec = TrialSpec("npo", {"lr": 3e-3, "epochs": epochs, "retain_weight": 3.0}, 4)
    assert Effort.of(bench.probes, 2 * 4 * epochs * bench.batch).looks == looks
    outcome = bench.run([spec], [lambda *_: False])[0]
    assert outcome.status == "complete"
    assert len({end.step for end in outcome.ended}) > 1
    for end in outcome.ended:
        bench.put(outcome, end.step, end.mix)
        held = base.trainable.snapshot()
        assert {p.risk: mean(losses(base, p)) for p in bench.probes} == end.means
        bench.retrain(spec, end.step, end.mix)
        again = base.trainable.snapshot()
        assert all(bool((again[name] == held[name]).all()) for name in again)


def test_effort_follows_what_training_costs(bench: TrialRunner) -> None:
    assert Effort.of(bench.probes, 0) == Effort(1, 0)
    assert Effort.of(bench.probes, 10**9) == Effort(4, 6)
    dear = [replace(p, measurement=measurement("rouge_l")) for p in bench.probes]
    passes = 4 * sum(len(p.rows) for p in bench.probes)
    assert Effort.of(dear, passes).kept <= Effort.of(bench.probes, passes).kept


def _with(line: TrialRecord, config: str, forgetting: float, utility: float) -> dict[str, Any]:
    means = {FORGETTING: forgetting, UTILITY: utility}
    return {"config": config, "stop": 3, "mix": 0.5, "search": means, "averages": None}


def test_the_shortlist_takes_two_of_a_training_run_and_the_likeliest_first() -> None:
    variants = [_with(LINE, f"c0000-s3-m0{i}00", 0.01 * i, 0.02) for i in range(1, 5)]
    log = [replace(LINE, variants=variants)]
    log.append(replace(LINE, trial=1, config="c0001", search={FORGETTING: 0.05, UTILITY: 0.05}))
    budget = {FORGETTING: 0.1, UTILITY: 0.1}
    configs = [configuration for line in log for configuration in line.configurations()]
    sums = {
        configuration.config: {r: (round(m * 120_000), 120) for r, m in (configuration.search or {}).items()}
        for configuration in configs
    }
    listed = ranking.Leaderboard(budget, 10).with_trials(log, sums).candidates
    assert [configuration.config for configuration in listed] == ["c0000-s3-m0100", "c0000-s3-m0200", "c0001"]
    assert listed[0].params == {"lr": 0.1, "stop": 3, "mix": 0.5}
    assert [configuration.weight for configuration in listed] == [1.0, 1 / 2, 1 / 3]


def test_the_sampler_learns_from_the_best_variant(tmp_path: Path) -> None:
    space: dict[str, Any] = {"npo": {"lr": Range(0.01, 1.0)}}
    study = Study(tmp_path / "study.db", space, BUDGET, sampler="random", pruner="none", seed=0)
    study.resume([])
    _, params = study.ask(0)
    line = replace(LINE, params=params, variants=[_with(LINE, "c0000-s3-m0500", 0.02, 0.01)])
    study.tell(line)
    (trial,) = study._study.get_trials() if study._study else []
    assert trial.values == pytest.approx([0.02 / BUDGET[FORGETTING]])
    assert (trial.user_attrs["config"], trial.user_attrs["stop"], trial.user_attrs["mix"]) == ("c0000", 3, 0.5)
    again = Study(tmp_path / "study.db", space, BUDGET, sampler="random", pruner="none", seed=0)
    again.resume([line])
    assert again._study is not None
    assert again._study.get_trials()[0].values == trial.values


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_pruners_stop_the_hopeless_and_go_on_from_the_log(pruner: str) -> None:
    """No training: good and bad trials in turn. The bad are stopped, no trial within budget is, and the log says all."""
    space: dict[str, Any] = {"npo": {"lr": Range(0.01, 1.0)}}
    study = Study(None, space, BUDGET, sampler="random", pruner=pruner, seed=1)
    study.resume([])
    log: list[TrialRecord] = []
    seen: dict[str, list[list[float]]] = {}
    for number in range(24):
        log.append(_trial(study, number, seen))
        study.tell(log[-1], seen[log[-1].config])
    stopped = [line.trial for line in log if line.status == "pruned"]
    assert stopped
    assert all(trial % 3 != 0 for trial in stopped)
    again = Study(None, space, BUDGET, sampler="random", pruner=pruner, seed=1)
    again.resume(log, lambda config: seen[config])
    assert again.ask(24) == study.ask(24)
    bad = [[1, {FORGETTING: 0.9, UTILITY: 0.9}]]
    verdicts = [point.pruner("npo").begin()(bad, [[9.0] * 40]) for point in (again, study)]
    assert verdicts[0] == verdicts[1]


def _trial(study: Study, number: int, seen: dict[str, list[list[float]]]) -> TrialRecord:
    method, params = study.ask(number)
    line = TrialRecord(number, 1, f"c{number:04d}", method, params, number, "", "", ended="", steps=3, seconds=0.1)
    ratio = 0.5 if number % 3 == 0 else 6.0 + number / 100
    means = {risk: ratio * alpha for risk, alpha in BUDGET.items()}
    rungs: list[list[Any]] = []
    seen[line.config] = []
    hopeless = study.pruner(method).begin()
    for place in (1, 2):
        rungs.append([place, means])
        seen[line.config].append([ratio + i / 1000 for i in range(40)])
        if hopeless(rungs, seen[line.config]):
            return replace(line, status="pruned", rungs=rungs)
    return replace(line, status="complete", rungs=rungs, search=means)


def test_listed_values_and_grids() -> None:
    lists: Mapping[str, Any] = {
        "lr": ["1e-3", "2e-3"],
        "epochs": ["3", "5", "3"],
        "npo.beta": ["0.1"],
        "retain_weight": ["1"],
    }
    space = build(["npo"], {"lr": (1e-5, 1e-3)}, lists)
    assert space["npo"]["lr"] == Choice((1e-3, 2e-3))
    assert space["npo"]["epochs"] == Choice((3, 5))
    assert size(space) == 4
    assert build(["idk"], {}, {"form": ["nll"]})["idk"]["form"] == Choice(("nll",))
    with pytest.raises(InputError, match="one of dpo, nll"):
        build(["idk"], {}, {"form": ["ppo"]})
    with pytest.raises(InputError, match="no list of numbers"):
        build(["npo"], {}, {"epochs": ["2.5"]})
    with pytest.raises(InputError, match="above 0"):
        build(["npo"], {}, {"lr": ["0"]})
    with pytest.raises(InputError, match=r"--space npo\.lr=A,B,C"):
        size(build(["npo"], {}, {}))


def test_a_grid_is_walked_once() -> None:
    space: dict[str, Any] = {"npo": {"lr": Choice((1.0, 2.0)), "epochs": Range(3, 5)}, "rmu": {"c": Choice((1.0,))}}
    study = Study(None, space, BUDGET, sampler="grid", pruner="none", seed=3)
    study.resume([])
    drawn = set()
    for number in range(size(space)):
        method, params = study.ask(number)
        drawn.add((method, *sorted(params.items())))
        means = dict.fromkeys(BUDGET, 0.5)
        study.tell(TrialRecord(number, 1, f"c{number:04d}", method, params, 0, "", "", status="complete", search=means))
    assert len(drawn) == size(space) == 7


def test_a_grid_counts_and_walks_what_can_be_drawn() -> None:
    """By hand: npo takes 3 betas, nll is plain or weighed in 2 ways: 6 terms. Each with 2 retain terms, and with 3 weights under
    `sum` or 1 gamma under `blur`: 6 * 2 * (3 + 1) = 48. What is drawn nowhere needs no list."""
    lists: dict[str, Any] = {
        "lr": ["1e-3"], "epochs": ["3"], "forget": ["npo", "nll"], "npo_beta": ["0.1", "0.2", "0.3"], "likely_up": ["1"],
        "likely_down": ["0.1", "0.2"], "combiner": ["sum", "blur"], "retain_weight": ["1", "2", "4"], "gamma": ["1"],
        "rows": ["alike"], "update": ["as_is"], "under": ["nothing"], "parts": ["all"],
    }  # fmt: skip
    space = build(["compose"], {}, lists)
    assert size(space) == 48
    with pytest.raises(InputError, match=r"a grid needs values for compose\.slack, compose\.dual_rate"):
        size(build(["compose"], {}, lists | {"combiner": ["sum", "blur", "dual"]}))
    idk = build(["idk"], {}, {"lr": ["1e-3"], "epochs": ["3"], "beta": ["0.1", "0.5"], "retain_weight": ["1"]})
    assert size(idk) == 3
    for grid, count in ((space, 48), (idk, 3)):
        study = Study(None, grid, BUDGET, sampler="grid", pruner="none", seed=3)
        study.resume([])
        drawn = {(method, *sorted(params.items())) for method, params in map(study.ask, range(count))}
        assert len(drawn) == count


def test_no_method_has_a_hyperparameter_named_like_the_sweeps() -> None:
    assert not any({"stop", "mix"} & set(spaces(find(Method, name))) for name in names(Method))


@pytest.fixture(scope="module")
def swept(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that sealed a stop and mix, and its key."""
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        run(job(base, questions=21, trials=4), place / "run", Watch())
    keys.keygen(place / "key", None)
    return place


def _stray(line: dict[str, Any]) -> None:
    line["variants"][0]["config"] = "c9999-s1-m0500"


def _other_mix(line: dict[str, Any]) -> None:
    line["variants"][0]["mix"] = 0.123


def _twice(line: dict[str, Any]) -> None:
    line["variants"].append(line["variants"][0])


def _gone(line: dict[str, Any]) -> None:
    line["variants"] = []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_stray, "trial-repeated"),
        (_other_mix, "trial-config-set"),
        (_twice, "trial-repeated"),
        (_gone, "trial-config-set"),
    ],
)
def test_a_sealed_variant_must_be_one_of_its_trial(swept: Path, tmp_path: Path, change: Any, check: str) -> None:
    """The report refuses a candidate whose stop or mix is not what the log of its trial says."""
    out = tmp_path / "run"
    shutil.copytree(swept / "run", out)
    bundle.build(out, tmp_path, swept / "key")
    sealed = {entry["config"] for entry in json.loads((out / "seal.json").read_text())["candidates"]}
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    at = next(line for line in lines if any(entry["config"] in sealed for entry in line["variants"]))
    at["variants"].sort(key=lambda entry: entry["config"] not in sealed)
    change(at)
    (out / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=check):
        bundle.build(out, tmp_path / "again", swept / "key")


def test_the_middle_of_listed_numbers_goes_by_size() -> None:
    (first,) = first_configs({"epochs": Choice((9, 1, 3)), "lr": Choice((1e-3, 1e-5, 1e-4))}, 1, seed=0)
    assert first == {"epochs": 3, "lr": 1e-4}
    (named,) = first_configs({"schedule": Choice(("linear", "cosine", "constant"))}, 1, seed=0)
    assert named == {"schedule": "cosine"}


def test_the_first_start_is_the_middle_and_the_others_cover_a_space_and_every_choice() -> None:
    fields: dict[str, Any] = {
        "lr": Range(1e-4, 1e-2, log=True),
        "epochs": Range(3, 10),
        "form": Choice(("a", "b")),
        "c": Range(0.5, 2.0),
    }
    starts = first_configs(fields, 8, seed=3)
    assert starts == first_configs(fields, 8, seed=3) != first_configs(fields, 8, seed=4)
    assert starts[0] == {"lr": pytest.approx(1e-3), "epochs": 7, "form": "b", "c": 1.25}
    assert {start["form"] for start in starts[1:]} == {"a", "b"}
    assert sorted({int(np.log10(start["lr"] / 1e-4) // 0.5) for start in starts}) == [0, 1, 2, 3]
    assert all(3 <= start["epochs"] <= 10 and isinstance(start["epochs"], int) for start in starts)
    assert all(0.5 <= start["c"] <= 2.0 for start in starts)
    swept = first_configs(fields, 8, seed=3, swept=True)
    assert swept == [{"lr": pytest.approx(10**-2.5), "epochs": 9, "form": "b", "c": 1.25}, *starts[1:]]


def test_a_model_of_hyperparameters_is_asked_method_by_method() -> None:
    """GP and NSGA-II cannot model hyperparameters that come and go; a method's own are always there."""
    space: dict[str, Any] = {"one": {"x": Range(0.0, 1.0)}, "two": {"y": Range(0.0, 1.0), "z": Range(0.0, 1.0)}}
    for sampler in ("tpe", "gp", "nsga2"):
        study = Study(None, space, BUDGET, sampler=sampler, pruner="none", seed=2)
        study.resume([])
        proposed = []
        for number in range(60):
            method, params = study.ask(number)
            proposed.append((method, params))
            means = dict.fromkeys(BUDGET, abs(params["x"] - 0.8) if method == "one" else 0.9)
            study.tell(
                TrialRecord(number, 1, f"c{number:04d}", method, params, 0, "", "", status="complete", search=means)
            )
        late = [params["x"] for method, params in proposed[30:] if method == "one"]
        assert len(late) > 15  # the better method has more turns
        assert len(late) < 30  # the other one still has some
        # one hyperparameter leaves a genetic algorithm nothing to cross
        assert sampler == "nsga2" or np.median(np.abs(np.array(late) - 0.8)) < 0.15
