"""How methods and compositions are named, what may be put together, and what is drawn."""

from typing import Any

import optuna
import pytest

from froc.data.splits import SearchView
from froc.errors import InputError
from froc.methods.blur import ForgetFirst
from froc.plugins import canonical_name, find, make
from froc.search.optuna.space import build, choose, group, suggest
from froc.search.optuna.study import Study
from froc.search.run_folder import TrialRecord
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import MethodContext
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.methods.test_compose import _away, _never


@pytest.mark.parametrize(
    ("written", "meant"),
    [("GradDiff", "grad_diff"), ("graddiff", "grad_diff"), ("grad-diff", "grad_diff"), ("GU(graddiff)", "gu(grad_diff)"),
     ("gu(sure(KL-min))", "gu(sure(kl_min))"), ("nosuch", "nosuch")],
)  # fmt: skip
def test_names_are_understood_without_their_signs(written: str, meant: str) -> None:
    assert canonical_name(Method, written) == meant


@pytest.mark.parametrize(
    ("name", "why"),
    [("gu", r"write gu\(npo\)"), ("gu(grad_ascent)", "retain rows"), ("blur(pdu)", "combines"), ("blur(gu)", "goes around"),
     ("gu(gu(npo))", "hyperparameter memory"), ("lat(idk)", "other answers"), ("advunlearn(rmu)", "hidden states"),
     ("lat(advunlearn(npo))", "one adversary"), ("npo(simnpo)", "wraps no other"), ("gu(none)", "trains nothing"),
     ("gu(npo", "not understood"), ("gu(nop)", "did you mean 'npo'")],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        find(Method, name)().phases(MethodContext(2, 8, 0))


def test_a_wrapped_method_has_the_hyperparameters_of_both() -> None:
    wrapped = make(Method, "gu(npo)", {"beta": 0.5, "memory": 3})
    assert (vars(wrapped)["beta"], vars(wrapped)["memory"]) == (0.5, 3)
    assert find(Method, "gu(npo)") is find(Method, "GU(npo)")
    space = build(
        ["blur(simnpo)", "satimp"], {"lr": (1e-4, 1e-3)}, {"blur(simnpo).gamma": (0.5, 1.0), "beta2": ["0.1"]}
    )
    # one gamma stands for both weights
    assert set(space["blur(simnpo)"]) == {"lr", "epochs", "beta", "margin", "gamma"}
    trial = optuna.trial.FixedTrial(
        {"method": "blur(simnpo)", "blur(simnpo).lr": 2e-4, "blur(simnpo).epochs": 2, "blur(simnpo).beta": 1.0,
         "blur(simnpo).margin": 0.0, "blur(simnpo).gamma": 0.7}
    )  # fmt: skip
    method, params = suggest(trial, space)
    assert make(Method, method, params).phases(MethodContext(2, 8, 0))[0].combiner == ForgetFirst(0.7)
    weights = {
        name: part.weight for name, part in make(Method, method, params).phases(MethodContext(2, 8, 0))[0].parts.items()
    }
    assert weights == {"forget": 1.0, "retain": 1.0}


def test_words_stand_for_methods_families_or_all(parts: tuple[SearchView, Any]) -> None:
    view = parts[0]
    assert (
        choose([], view)[0]
        == choose(["standard"], view)[0]
        == ["grad_ascent", "grad_diff", "idk", "npo", "rmu", "simnpo"]
    )
    every = choose(["all"], view)[0]
    assert not {"none", "retrain", "gu"} & set(every)
    assert {"npo", "kl_min", "pdu", "task_vector"} <= set(every)
    assert choose(["preference", "gu(npo)", "npo"], view)[0] == [*group("preference"), "gu(npo)"]
    bare = SearchView(view.forget, (), (), view.queries, view.template)
    methods, notes = choose(["all"], bare)
    assert methods == ["grad_ascent", "repselect", "task_vector"]
    assert any("idk needs refusals" in note for note in notes)
    for name, why in (("flat", "refusals"), ("gu(npo)", "retain rows"), ("retrain", "embedded task brings")):
        with pytest.raises(InputError, match=why):
            choose([name], bare)


def test_a_method_without_hyperparameters_is_tried_once() -> None:
    study = Study(None, build(["none", "npo"], {}, {}), {"forgetting": 0.1}, sampler="tpe", pruner="none", seed=0)
    study.resume([])
    assert [study.ask(number)[0] for number in range(6)] == ["none", *["npo"] * 5]


def test_every_composition_that_is_drawn_is_valid_and_nothing_idle_is_drawn(bench: TrialRunner) -> None:
    """Choices decide which hyperparameters a trial has; a study goes on from a log of such trials."""
    space = build(["compose"], {}, {"compose.lr": (1e-4, 1e-3), "compose.epochs": (1, 1)})
    keywords: dict[str, Any] = {"sampler": "random", "pruner": "none", "seed": 3}
    study = Study(None, space, {"forgetting": 0.1}, **keywords)
    study.resume([])
    drawn = [study.ask(number)[1] for number in range(60)]
    for params in drawn:
        phase = make(Method, "compose", params).phases(MethodContext(2, 8, 0))[0]
        assert ("retain_weight" in params) == (params["combiner"] == "sum")
        assert ("memory" in params) == (params["update"] == "gu")
        assert ("likely_up" in params) == (params.get("tokens") == "likely")
        assert isinstance(phase.combiner, ForgetFirst) == (params["combiner"] == "blur")
        assert set(phase.roles) == {"forget", "retain"}
    assert {params["forget"] for params in drawn} == {"nll", "npo", "simnpo", "undial", "ceu", "flatten"}
    log = []
    for number, params in enumerate(drawn[:8]):
        (outcome,) = bench.run([TrialSpec("compose", params, number)], [_never])
        assert outcome.status == "complete"
        means = outcome.ended[0].means
        log.append(
            TrialRecord(number, 1, f"c{number:04d}", "compose", params, number, "", "", status="complete", search=means)
        )
    again = Study(None, space, {"forgetting": 0.1, "utility": 0.1}, **keywords | {"sampler": "tpe"})
    again.resume(log)
    assert make(Method, *again.ask(8))


def test_none_is_the_base_model(bench: TrialRunner) -> None:
    bench.base.restore()
    assert unlearn(bench.base, make(Method, "none"), bench.reference, batch=16, seed=1) == 0
    assert _away(bench.base.trainable.snapshot(), bench.base.trainable.base_values()) == 0.0
    (outcome,) = bench.run([TrialSpec("none", {}, 1)], [lambda *_: True])
    assert (outcome.status, outcome.steps, len(outcome.ended)) == ("complete", 0, 1)
    assert outcome.ended[0].means["utility"] == 0.0
