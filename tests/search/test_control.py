"""From the base model's own measurement to the seal: what was never there, and what is not worth opening."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import LlamaForCausalLM

from audit import evidence, signing, verification
from froc import openings
from froc.control import BASE
from froc.data import FORGETTING, UTILITY
from froc.errors import InputError
from froc.models import Base, wrap
from search import sealing
from search.folder import Folder, Started
from search.run import run
from tests.search.test_run import BUDGET, Watch, job


@pytest.fixture(scope="module")
def ignorant(base: Base) -> Base:
    """A model of the base's shape that was never trained."""
    torch.manual_seed(0)
    return wrap("ignorant", LlamaForCausalLM(base.model.config).eval(), base.tokenizer)


def test_a_model_that_never_knew_stops_before_the_first_trial(ignorant: Base, tmp_path: Path) -> None:
    out, watch = tmp_path / "run", Watch()
    one = job(ignorant)
    with pytest.raises(InputError, match=r"forgetting: the base model itself shows 0\.0.*utility.*--allow-vacuous"):
        run(one, out, watch)
    assert not watch.started
    assert not (out / "plan.json").exists()
    # the mend may be another plan: nothing stands in its way
    with pytest.raises(InputError, match="the base model itself"):
        run(job(ignorant, trials=4), out, Watch())


def test_gone_on_with_it_is_not_established_and_its_report_says_so(ignorant: Base, tmp_path: Path) -> None:
    out = tmp_path / "run"
    certificate = run(job(ignorant, trials=1, methods=("npo",), allow_vacuous=True), out, Watch())
    assert certificate["certified"] == []
    assert certificate["reason"].startswith("NOT ESTABLISHED for forgetting and utility")
    assert all(certificate["base"][risk]["vacuous"] for risk in BUDGET)
    # a model that never knew has no risk: nothing but the control stands between it and a certificate
    assert certificate["candidates"][0]["p_value"] < 0.1
    assert not (out / "model").exists()
    signing.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    found = verification.verify(bundle, keys=[tmp_path / "key.pub"])
    assert found.verdict == "NOT_ESTABLISHED"
    assert [one["verdict"] for one in found.report["claims"]] == ["NOT_ESTABLISHED"] * 2
    page = (bundle / "report.html").read_text()
    assert "Nothing is established about forgetting, utility" in page
    assert "✓ yes" not in page


def test_before_stands_beside_after(base: Base, tmp_path: Path) -> None:
    out, watch = tmp_path / "run", Watch()
    certificate = run(job(base), out, watch)
    for risk in BUDGET:
        assert watch.base[risk]["before"] > 0.95
        assert certificate["base"][risk]["lower"] > 0.9
    assert certificate["chosen"]
    # in a file of its own: a lack is no loss, and a base model that lacks nothing is no candidate
    assert BASE not in pl.read_parquet(out / "losses" / "calibration.parquet")["config"]
    base_rows = pl.read_parquet(out / "losses" / "base.parquet").filter(pl.col("split") == "calibration")
    assert len(base_rows) == sum(certificate["n"].values())
    # absences of a model that knows all: a mean of 1 - before
    mean = base_rows.filter(pl.col("risk") == FORGETTING)["loss"].mean()
    assert certificate["base"][FORGETTING]["before"] == pytest.approx(1 - float(str(mean)) / 1000)


def test_where_nothing_is_near_the_queries_stay_sealed_and_trials_may_grow(base: Base, tmp_path: Path) -> None:
    """`none` is the base model itself: no search loss could come from a risk within budget."""
    out, watch = tmp_path / "run", Watch()
    one = job(base, methods=("none", "npo"), trials=1, budget=dict.fromkeys(BUDGET, 0.6))
    found = run(one, out, watch)
    folder = Folder(out)
    assert found["opened"] is False
    assert found["chosen"] is None
    assert "nothing worth opening" in found["reason"]
    assert "no trial moved forgetting from the base model's 1.000" in found["reason"]
    assert folder.read(folder.seal) is None
    assert not folder.calibration_losses.exists()
    assert not hasattr(watch, "calibrated")
    first = json.loads(folder.plan.read_text())
    assert not list(openings.state_folder().rglob("*.json"))
    # the same command again asks nothing new
    assert run(one, out, Watch())["reason"] == found["reason"]
    certificate = run(replace(one, settings=replace(one.settings, trials=5)), out, Watch())
    assert certificate["chosen"]
    assert certificate["opening"]["number"] == 1
    plan = json.loads(folder.plan.read_text())
    assert plan["search"]["trials"] == 5
    assert plan["created"] == first["created"]
    assert len(plan["extends"]) == 1
    log = folder.log()
    assert [line.plan == plan["extends"][0] for line in log] == [True, *[False] * 4]
    signing.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    again = verification.verify(bundle, keys=[tmp_path / "key.pub"], model=out / "model")
    assert again.verdict == "PASS"
    assert again.plan_status == "asserted-signed-after-run"
    # nothing grows once the queries are open
    with pytest.raises(InputError, match=r"made by another plan \(search\.\w+ differs\)"):
        run(replace(one, settings=replace(one.settings, trials=9)), out, Watch())


@pytest.mark.parametrize(
    ("means", "worth"),
    [
        ([{FORGETTING: 20, UTILITY: 20}], True),
        ([{FORGETTING: 130, UTILITY: 20}], True),  # a near miss may be chance
        ([{FORGETTING: 600, UTILITY: 20}], False),
        ([{FORGETTING: 20, UTILITY: 600}], False),
        ([{FORGETTING: 600, UTILITY: 20}, {FORGETTING: 130, UTILITY: 20}], True),
        ([], False),
    ],
)
def test_what_is_worth_opening(means: list[dict[str, int]], worth: bool) -> None:
    sums = [{risk: (mean * 60, 60) for risk, mean in one.items()} for one in means]
    assert sealing.worth_opening(sums, {FORGETTING: 0.1, UTILITY: 0.1}, {FORGETTING: 60, UTILITY: 60}) is worth


def test_queries_of_one_group_count_once() -> None:
    """A mean of .3 over 200 queries is no chance, over 5 groups of 40 it may be."""
    sums = [{FORGETTING: (300 * 200, 200)}]
    assert not sealing.worth_opening(sums, {FORGETTING: 0.1}, {FORGETTING: 200})
    assert sealing.worth_opening(sums, {FORGETTING: 0.1}, {FORGETTING: 5})


def test_equal_mixes_take_one_place() -> None:
    def line(config: str, trial: int) -> Started:
        return Started(trial, 1, config, "npo", {}, 0, "", "", status="complete")

    same = {FORGETTING: (1000, 60), UTILITY: (2000, 60)}
    sums = {
        "c0000": same, "c0000-s8-m0500": same, "c0000-s8-m1000": {FORGETTING: (1000, 60), UTILITY: (2500, 60)}, "c0001": same
    }  # fmt: skip
    ranked = sealing.ordered([sealing._ranked(line(config, int(config[4])), sums[config], BUDGET) for config in sums])
    listed = [one.config for one in sealing.shortlist(ranked, 10)]
    assert sorted(listed) == ["c0000", "c0000-s8-m1000", "c0001"]
