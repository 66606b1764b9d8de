"""A job rebuilt from a plan that somebody else wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from froc.errors import InputError
from froc.search.machine import Machine
from froc.search.rebuilding import Rebuilding, rebuilt_job
from tests.commands import ROOT


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.pop("search"), lambda plan: plan.update(population=None),
        lambda plan: plan["task"].update(units=["query"]), lambda plan: plan["split"].update(calibration=1),
        lambda plan: plan["search"].update(batch="many"), lambda plan: plan["search"].update(batch=-1),
        lambda plan: plan["split"].update(label=5),
    ],
    ids=[
        "no search", "no populations", "a list of units", "a number of queries", "a word for a number", "a batch below 1", "a number for a label",
    ],
)  # fmt: skip
def test_a_plan_that_no_search_writes_is_one_sentence(change: Callable[[dict[str, Any]], object]) -> None:
    """Its signer may put in it what the report's own checks do not read."""
    plan = json.loads((ROOT / "docs" / "examples" / "pass.froc-audit" / "plan.json").read_text())
    plan["population"] |= {"forgetting": "sample"}
    change(plan)
    with pytest.raises(InputError, match="is not one that froc search writes"):
        rebuilt_job(plan, Rebuilding("report", Path("task")), Machine(), lambda *_: None)


def test_a_folder_that_a_report_names_is_not_opened(tmp_path: Path) -> None:
    plan = json.loads((ROOT / "docs" / "examples" / "pass.froc-audit" / "plan.json").read_text())
    plan["task"]["name"] = str(tmp_path)
    with pytest.raises(InputError, match="give its folder with --task"):
        rebuilt_job(plan, Rebuilding("report"), Machine(), lambda *_: None)
