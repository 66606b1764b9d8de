"""Learning rates that fit the model, where neither user nor task says any."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.hyperparameters import Range
from froc.models.base import Base
from froc.search.executors.inline import Inline
from froc.search.job import Job, runner_of
from froc.search.optuna import learning_rates
from froc.search.optuna.space import build, choose
from froc.search.pipeline import run
from froc.search.settings import Settings
from froc.search.trial.outcome import TrialSpec
from tests.search.small_search import Watch
from tests.small_model import SMALL

BUDGET = {FORGETTING: 0.3, UTILITY: 0.3}


def job(base: Base, task: dict[str, Any] | None = None, **overrides: Any) -> Job:
    """A search in which only `task` and `overrides` say what to draw from."""
    whole = replace(embedded_text.task(SMALL), space=task or {})
    settings = Settings(
        **{"budget": BUDGET, "trials": 1, "methods": ("npo",), "batch": 16, "sampler": "random", **overrides}
    )
    view, sealed = split(whole, settings.share)
    methods, notes = choose(settings.methods, view)
    return Job(base, whole, view, sealed, build(methods, whole.space, settings.space), settings, tuple(notes))


def _ends(searched: Job, method: str) -> tuple[float, float]:
    rate = searched.space[method]["lr"]
    assert isinstance(rate, Range)
    return rate.low, rate.high


def _quiet(*_: Any) -> None:
    pass


def test_ranges_that_do_nothing_to_a_small_model_become_ranges_that_hold_what_works(base: Base) -> None:
    """Before, every trial ends at 1.000; after, the range begins where little moves and ends beyond half forgotten."""
    made = job(base, methods=("npo", "rmu"))
    bench = runner_of(made)
    fitted = learning_rates.fitted(made, learning_rates.measured(made, Inline(lambda: bench), _quiet))

    def forgetting(method: str, rate: float) -> float:
        (outcome,) = bench.run([TrialSpec(method, {"lr": rate}, 1)], [lambda *_: False])
        return outcome.ended[0].means[FORGETTING]

    assert forgetting("npo", _ends(made, "npo")[1]) == 1.0
    low, high = _ends(fitted, "npo")
    # over four models and three seeds each: at the low end 0.98 to 1, at the high end 0 to 0.1
    assert forgetting("npo", low) > 0.8
    assert forgetting("npo", high) < 0.3
    assert _ends(fitted, "rmu")[0] > _ends(made, "rmu")[0]
    bench.base.restore()


def test_what_is_found_is_the_same_each_time_and_takes_two_trials_worth_of_steps(base: Base) -> None:
    made = job(base, methods=("npo", "grad_diff", "idk", "rmu"))
    bench = runner_of(made)
    work = learning_rates.FindLearningRates("npo", 0, 4)
    rates = pickle.loads(pickle.dumps(work))(bench)
    assert work(bench) == rates
    assert all(
        bool((bench.base.trainable.base_values()[n] == p).all()) for n, p in bench.base.trainable.parameters().items()
    )
    whole = bench.prepared(TrialSpec("npo", {}, 0), {}).steps
    assert rates["steps"] == max(
        learning_rates.MIN_STEPS, learning_rates.TRIALS * whole // (4 * learning_rates.PLANNED_RATES)
    )
    assert len(rates["tried"]) <= learning_rates.PLANNED_RATES
    bench.base.restore()


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ({"lr": (1e-4, 1e-3)}, {}),
        ({"npo.lr": (1e-4, 1e-3)}, {}),
        ({}, {"space": {"lr": (1e-4, 1e-3)}}),
        ({}, {"space": {"npo.lr": (1e-4, 1e-3)}}),
        ({}, {"space": {"lr": ["1e-4", "1e-3"]}}),
        ({}, {"methods": ("none",)}),
    ],
)
def test_what_somebody_said_is_not_looked_for(base: Base, task: dict[str, Any], overrides: dict[str, Any]) -> None:
    made = job(base, task, **overrides)
    assert learning_rates.open_methods(made) == {}
    assert learning_rates.measured(made, Inline(lambda: pytest.fail("no bench is needed")), _quiet) == {}
    assert learning_rates.fitted(made, {}).space == made.space


def test_one_method_of_each_family_speaks_for_it_at_its_own_scale(base: Base) -> None:
    """What holds retain rows comes first; a method whose rates somebody said keeps them."""
    made = job(base, methods=("grad_ascent", "grad_diff", "npo", "simnpo"), space={"simnpo.lr": (1e-5, 2e-5)})
    assert learning_rates.open_methods(made) == {"gradient": "grad_diff", "preference": "npo"}
    rates = {"preference": {"method": "npo", "low": 1e-3, "high": 2e-2, "tried": {}}}
    fitted = learning_rates.fitted(made, rates)
    assert [_ends(fitted, name) for name in ("npo", "simnpo", "grad_diff")] == [
        (1e-3, 2e-2), (1e-5, 2e-5), _ends(made, "grad_diff")
    ]  # fmt: skip


def test_where_no_rate_moves_anything_it_is_said_and_the_range_stays(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_rates, "RATES", tuple(1e-9 * 2**k for k in range(9)))
    made = job(base)
    fitted = learning_rates.fitted(made, learning_rates.measured(made, Inline(lambda: runner_of(made)), _quiet))
    assert fitted.space == made.space
    assert [note for note in fitted.notes if "moved forgetting from the base's 1" in note and "--space lr=" in note]


def test_the_plan_keeps_what_was_found_and_a_resumed_run_does_not_look_again(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    made = replace(job(base), progress=lambda stage, _done, _of: stages.append(stage))
    out = tmp_path / "run"
    certificate = run(made, out, Watch())
    assert {"finding learning rates", "measuring the base model", "training npo"} <= set(stages)
    # it is said once how long a trial takes
    assert len([stage for stage in stages if stage.startswith("a trial of npo: ")]) == 1
    plan = json.loads((out / "plan.json").read_text())
    low, high = plan["rates"]["preference"]["low"], plan["rates"]["preference"]["high"]
    assert plan["search"]["space"]["npo"]["lr"] == f"{low:g} .. {high:g} (log)"
    (line,) = [json.loads(text) for text in (out / "trials.jsonl").read_text().splitlines()]
    assert low <= line["params"]["lr"] <= high
    (out / "certificate.json").unlink()
    monkeypatch.setattr(learning_rates.FindLearningRates, "__call__", lambda *_: pytest.fail("it was measured before"))
    assert run(job(base), out, Watch()) == certificate
    with pytest.raises(InputError, match=r"made by another plan \(search.space"):
        run(job(base, space={"lr": (1e-4, 1e-3)}), out, Watch())


def test_a_run_of_a_version_that_did_not_look_goes_on_with_its_ranges(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # such rates do nothing, and nothing would be opened for that
    monkeypatch.setattr("froc.search.sealed.ranking.IMPLAUSIBLE", 0.0)
    out = tmp_path / "run"
    stated = job(base, space={"lr": (1e-6, 1e-4)})
    run(stated, out, Watch())
    # what the older version searched where nobody said anything
    again = job(base)
    assert again.space == stated.space
    (out / "certificate.json").unlink()
    run(again, out, Watch())
    assert "rates" not in json.loads((out / "plan.json").read_text())
