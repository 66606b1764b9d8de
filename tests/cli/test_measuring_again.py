"""Measuring a report's losses again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from froc.cli.audit.measuring_again import Again, Measuring


@pytest.mark.parametrize("model", [None, Path("model")])
def test_a_chosen_configuration_that_cannot_be_trained_is_not_compared(model: Path | None) -> None:
    verified: Any = SimpleNamespace(
        report={"config": "c0001"},
        facts=SimpleNamespace(
            files={"model.safetensors": "a" * 64},
            plan=SimpleNamespace(task=SimpleNamespace(units={"utility": "group"})),
        ),
        files={"losses.csv": b""},
    )
    again = Again(pl.DataFrame(), None, {}, {}, {"c0001": "no method is called nosuch"})
    statement = Measuring(verified, lambda whole: pytest.fail("a job was made"), lambda *_: None).of_model(
        again, model, 7, 9
    )
    assert (statement["model"]["how"], statement["model"]["rows"], statement["model"]["bound"]) == (
        "not-trained",
        0,
        None,
    )
