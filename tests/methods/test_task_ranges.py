"""The ranges that a task or a user gives, beside the methods' own."""

import pytest

from froc.errors import InputError
from froc.hyperparameters import Choice, Range, spaces
from froc.plugins import find
from froc.search.optuna.space import build
from froc.training.method import Method


def _ends(field: Range | Choice) -> tuple[float, float]:
    assert isinstance(field, Range)
    return field.low, field.high


def test_a_tasks_learning_rates_count_at_each_methods_pace_and_a_users_do_not() -> None:
    methods = ["npo", "rmu", "gu(rmu)", "none"]
    lr_multiplier = find(Method, "rmu").lr_multiplier
    assert lr_multiplier > 1 == find(Method, "npo").lr_multiplier
    rates = {name: _ends(fields["lr"]) for name, fields in build(methods, {"lr": (3e-4, 3e-3)}, {}).items() if fields}
    assert rates == {
        "npo": (3e-4, 3e-3), "rmu": (lr_multiplier * 3e-4, lr_multiplier * 3e-3), "gu(rmu)": (lr_multiplier * 3e-4, lr_multiplier * 3e-3)
    }  # fmt: skip
    plain = build(methods, {"lr": (3e-4, 3e-3), "rmu.lr": (1e-2, 2e-2)}, {"npo.lr": (1e-4, 1e-3)})
    assert [_ends(plain[name]["lr"]) for name in ("npo", "rmu")] == [(1e-4, 1e-3), (1e-2, 2e-2)]


def test_a_task_speaks_to_methods_that_are_not_searched_too_but_not_to_none() -> None:
    task = {"lr": (3e-4, 3e-3), "rmu.retain_weight": (0.5, 50.0), "beta": (0.1, 0.2)}
    assert set(build(["grad_ascent"], task, {})["grad_ascent"]) == {"lr", "epochs"}
    held = build(["rmu", "grad_diff"], task, {})
    assert _ends(held["rmu"]["retain_weight"]) == (0.5, 50.0)
    assert held["grad_diff"]["retain_weight"] == spaces(find(Method, "grad_diff"))["retain_weight"]
    for key in ("rmu.retain_wait", "bata"):
        with pytest.raises(InputError, match="no method searched here has a hyperparameter"):
            build(["grad_ascent"], task | {key: (0.1, 0.2)}, {})
    with pytest.raises(InputError, match="no method searched here"):
        build(["grad_ascent"], {}, {"beta": (0.1, 0.2)})
