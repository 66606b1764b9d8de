"""From the base model's own measurement to the seal: what was never there, and what is not worth opening."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import LlamaForCausalLM

from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.data import ledger_files
from froc.data.task import FORGETTING, UTILITY
from froc.errors import InputError
from froc.measuring.agreement import Disagreement
from froc.measuring.metric import Metric
from froc.models.base import Base, wrap
from froc.plugins import make
from froc.risk.positive_control import BASE
from froc.search import positive_control
from froc.search.pipeline import run
from froc.search.plan import bounds
from froc.search.run_folder import Folder, TrialRecord
from froc.search.sealed import ranking
from froc.search.settings import Settings, measures, settings_of
from froc.search.trial.work import Agreement
from tests.commands import Commands
from tests.search.small_search import BUDGET, Watch, job
from tests.search.test_continual import TASKS, write
from tests.search.test_named_risks import job as named_job


@pytest.fixture(scope="module")
def ignorant(base: Base) -> Base:
    """A model of the base's shape that was never trained."""
    torch.manual_seed(0)
    config: Any = base.model.config
    return wrap("ignorant", LlamaForCausalLM(config).eval(), base.tokenizer)


def test_a_plan_notes_how_the_base_model_was_asked_and_the_query_that_disagrees() -> None:
    differing = Disagreement("queries 3", measured=True, generated=False, tokens=2, length=40)
    agreement = Agreement("a template", {"forgetting": 0.25, "utility": 0.5}, (differing,), 16)
    assert positive_control._prompt_note(agreement) == (
        "asked with a template, the base model gives answer tokens a likelihood of 0.250 of forgetting, 0.500 of utility (geometric mean); "
        f"16 search queries were asked by plain generation, too; one query disagrees ({differing})"
    )
    assert "disagrees" not in positive_control._prompt_note(replace(agreement, disagreements=()))


def test_a_model_that_never_knew_stops_before_the_first_trial(ignorant: Base, tmp_path: Path) -> None:
    out, watch = tmp_path / "run", Watch()
    made = job(ignorant)
    with pytest.raises(InputError, match=r"forgetting: the base model itself shows 0\.0.*utility.*--allow-vacuous"):
        run(made, out, watch)
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
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    result = verification.verify(bundle, keys=[tmp_path / "key.pub"])
    assert result.verdict == "NOT_ESTABLISHED"
    assert [claim["verdict"] for claim in result.report["claims"]] == ["NOT_ESTABLISHED"] * 2
    page = (bundle / "report.html").read_text()
    assert "Nothing is established about forgetting, utility" in page
    assert "✓ yes" not in page


def test_another_prompt_beside_the_model_is_warned_of_and_kept(base: Base, tmp_path: Path) -> None:
    """Of the base model, when it is measured, and still where the run goes on and asks it nothing any more."""
    folder = Path(shutil.copytree(base.name, tmp_path / "taught"))
    (folder / ".hydra").mkdir()
    prompt = {"apply_chat_template": False, "user_start_tag": "The clerk asks: ", "asst_start_tag": " "}
    (folder / ".hydra" / "config.yaml").write_text(json.dumps({"model": {"template_args": prompt}}))
    out, taught = tmp_path / "run", replace(base, name=str(folder))
    run(job(taught, trials=1, methods=("npo",)), out, Watch())
    (note,) = [note for note in json.loads((out / "plan.json").read_text())["notes"] if "another prompt" in note]
    assert "taught/.hydra/config.yaml" in note
    assert "clerk" not in (out / "plan.json").read_text()
    (out / "certificate.json").unlink()
    again = Watch()
    run(job(taught, trials=1, methods=("npo",)), out, again)
    assert json.loads((out / "plan.json").read_text())["notes"].count(note) == 1
    assert note in again.notes


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
    made = job(base, methods=("none", "npo"), trials=1, budget=dict.fromkeys(BUDGET, 0.6))
    unopened = run(made, out, watch)
    folder = Folder(out)
    assert unopened["opened"] is False
    assert unopened["chosen"] is None
    assert "nothing worth opening" in unopened["reason"]
    assert "no trial moved forgetting from the base model's 1.000" in unopened["reason"]
    assert folder.read(folder.seal) is None
    assert not folder.calibration_losses.exists()
    assert not hasattr(watch, "calibrated")
    first = json.loads(folder.plan.read_text())
    assert not list(ledger_files.state_folder().rglob("*.json"))
    # the same command again asks nothing new
    assert run(made, out, Watch())["reason"] == unopened["reason"]
    certificate = run(replace(made, settings=replace(made.settings, trials=5)), out, Watch())
    assert certificate["chosen"]
    assert certificate["opening"]["number"] == 1
    plan = json.loads(folder.plan.read_text())
    assert plan["search"]["trials"] == 5
    assert plan["created"] == first["created"]
    assert len(plan["extends"]) == 1
    log = folder.log()
    assert [line.plan == plan["extends"][0] for line in log] == [True, *[False] * 4]
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    again = verification.verify(bundle, keys=[tmp_path / "key.pub"], model=out / "model")
    assert again.verdict == "PASS"
    assert again.plan_status == "asserted-signed-after-run"
    # nothing grows once the queries are open
    with pytest.raises(InputError, match=r"made by another plan \(search\.\w+ differs\)"):
        run(replace(made, settings=replace(made.settings, trials=9)), out, Watch())


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
    sums = [{risk: (mean * 60, 60) for risk, mean in means_of_candidate.items()} for means_of_candidate in means]
    assert ranking.worth_opening(sums, {FORGETTING: 0.1, UTILITY: 0.1}, {FORGETTING: 60, UTILITY: 60}) is worth


def test_queries_of_one_group_count_once() -> None:
    """A mean of .3 over 200 queries is no chance, over 5 groups of 40 it may be."""
    sums = [{FORGETTING: (300 * 200, 200)}]
    assert not ranking.worth_opening(sums, {FORGETTING: 0.1}, {FORGETTING: 200})
    assert ranking.worth_opening(sums, {FORGETTING: 0.1}, {FORGETTING: 5})


def test_equal_mixes_take_one_place() -> None:
    def line(config: str, trial: int) -> TrialRecord:
        means = {FORGETTING: 0.0, UTILITY: 0.0}
        return TrialRecord(trial, 1, config, "npo", {}, 0, "", "", status="complete", search=means)

    same = {FORGETTING: (1000, 60), UTILITY: (2000, 60)}
    sums = {
        "c0000": same, "c0000-s8-m0500": same, "c0000-s8-m1000": {FORGETTING: (1000, 60), UTILITY: (2500, 60)}, "c0001": same
    }  # fmt: skip
    log = [line(config, int(config[4])) for config in sums]
    listed = [candidate.config for candidate in ranking.Leaderboard(BUDGET, 10).with_trials(log, sums).candidates]
    assert sorted(listed) == ["c0000", "c0000-s8-m1000", "c0001"]


@pytest.mark.parametrize("until", ["trials", "certified"])
def test_a_budget_that_is_a_share_of_what_the_base_scores(base: Base, tmp_path: Path, until: str) -> None:
    """From the search's limits to the signed report; the same folder goes on with the same plan alone."""
    out = tmp_path / "run"
    made = job(base, relative=(UTILITY,), until=until)
    certificate = run(made, out, Watch())
    assert certificate["chosen"]
    assert certificate["relative"] == [UTILITY]
    assert "utility loss at most 0.3 of what the base model had" in certificate["reason"]
    plan = json.loads((out / "plan.json").read_text())
    assert plan["relative"] == [UTILITY]
    absent = pl.read_parquet(out / "losses" / "base.parquet").filter(
        pl.col("split") == "search", pl.col("risk") == UTILITY
    )
    assert plan["before"][UTILITY] == pytest.approx(1 - float(str(absent["loss"].mean())) / 1000)
    assert settings_of(plan, {}).limits[UTILITY] == pytest.approx(0.3 * plan["before"][UTILITY])
    lost = pl.read_parquet(out / "losses" / "calibration.parquet").filter(pl.col("risk") == UTILITY)
    rows = pl.read_parquet(out / "losses" / "base.parquet").filter(
        pl.col("split") == "calibration", pl.col("risk") == UTILITY
    )
    row = certificate["candidates"][0]
    total = lost.filter(pl.col("config") == row["config"]).select(pl.col("loss").sum()).item()
    share = total / (1000 * len(rows) - rows.select(pl.col("loss").sum()).item())
    assert row["empirical"][UTILITY] == pytest.approx(share, abs=1e-6)
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    assert verification.verify(bundle, keys=[tmp_path / "key.pub"], model=out / "model").verdict == "PASS"
    assert run(made, out, Watch()) == certificate
    with pytest.raises(InputError, match=r"another plan \(relative differs\)"):
        run(job(base, until=until), out, Watch())


def test_what_the_search_steers_by_is_the_share_of_what_the_base_scores(base: Base) -> None:
    settings = job(base, relative=(UTILITY,)).settings
    assert settings.limits == BUDGET
    assert settings.known({UTILITY: 0.5, FORGETTING: 0.5}).limits == {FORGETTING: 0.3, UTILITY: 0.15}
    assert settings.known({UTILITY: 0.5}).steering == {FORGETTING: 0.3, UTILITY: 0.15}
    assert settings.known({UTILITY: 0.0}).limits[UTILITY] > 0
    assert job(base).settings.known({UTILITY: 0.5}).limits == BUDGET


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"relative": (FORGETTING,)}, "take utility"),
        ({"relative": ("quantized",)}, "take utility"),
        ({"relative": (UTILITY,), "sequential": True}, "leave --sequential"),
        ({"relative": (UTILITY,), "radius": 0.01}, "--radius"),
        ({"relative": ("faults",), "metrics": {"faults": "refusal/utility"}, "budget": {**BUDGET, "faults": 0.3}}, "only what is lost"),
        ({"relative": (UTILITY,), "budget": {**BUDGET, "combined": 0.3}, "weights": {FORGETTING: 0.5, UTILITY: 0.5}}, "combined"),
    ],
)  # fmt: skip
def test_relative_budgets_of_other_risks_are_refused(base: Base, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        job(base, **overrides).settings.check()


def test_parts_of_a_combined_risk_take_monotone_p_values() -> None:
    budget = {FORGETTING: 0.3, "combined": 0.1}
    settings = Settings(budget, weights=dict.fromkeys(BUDGET, 0.5))
    assert bounds(settings, dict.fromkeys(BUDGET, "query"), measures(settings), {}) == dict.fromkeys(BUDGET, "betting")
    alone = replace(settings, budget=dict(BUDGET), weights={})
    assert bounds(alone, dict.fromkeys(BUDGET, "query"), measures(alone), {}) == dict.fromkeys(
        BUDGET, "normal_test_betting"
    )


def test_a_share_of_a_binary_score_is_bet_on() -> None:
    """Its losses are no longer 0 or 1, so that no binomial tail is theirs."""
    settings = Settings(
        dict.fromkeys(BUDGET, 0.1), metrics=dict.fromkeys(BUDGET, "exact_memorization"), relative=(UTILITY,)
    )
    measured = measures(settings)
    zero_one = {risk: replace(measure, metric=make(Metric, "negative_flips")) for risk, measure in measured.items()}
    bound_of_risk = bounds(settings, dict.fromkeys(BUDGET, "query"), zero_one, {})
    assert bound_of_risk == {FORGETTING: "binomial", UTILITY: "normal_test_betting"}
    with pytest.raises(InputError, match="0-1 losses of single queries, which utility has not"):
        bounds(replace(settings, bound="binomial"), dict.fromkeys(BUDGET, "query"), zero_one, {})


def test_a_relative_budget_from_the_command_line(base: Base, commands: Commands, tmp_path: Path) -> None:
    """Searched for, and for a model from elsewhere; the share is said wherever a budget is."""
    task, model = write(TASKS[0], tmp_path / "task"), tmp_path / "model"
    base.restore()
    language_model: Any = base.model
    language_model.save_pretrained(model)
    base.tokenizer.save_pretrained(model)
    options = ("-b", "0.45", "--relative", "utility", "--task", str(task), "--openings", "2")
    done = commands.run(
        ["search", *options, "--model", str(model), "--trials", "2", "--methods", "npo", "--space", "lr=1e-3:4e-3", "--space",
         "epochs=4:8", "--batch", "16", "--candidates", "1", "--executor", "inline", "-o", str(tmp_path / "run")]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "budget 0.45 of base)" in done.stdout
    assert "utility loss at most 0.45 of what the base model had" in done.stdout
    assert "of which at most a share of" in done.stdout
    audited = commands.run(
        ["audit", "model", *options, "--base", str(model), "--unlearned", str(tmp_path / "run" / "model"), "-o",
         str(tmp_path / "audited"), "--json"]
    )  # fmt: skip
    assert audited.returncode == 0, audited.stderr
    assert json.loads(audited.stdout)["relative"] == ["utility"]
    refused = commands.run(["search", "-b", "0.1", "--relative", "forgetting", "-o", str(tmp_path / "other")])
    assert refused.returncode == 2
    assert "--relative forgetting" in refused.stderr
    assert "take utility" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_hopeless_candidates_are_not_attacked_and_later_ones_are(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks are measured where forgetting and utility leave hope, and after more trials on the new candidates too."""
    out, budget = tmp_path / "run", dict.fromkeys(BUDGET, 0.6) | {"quantized": 0.6}
    made = named_job(base, budget, methods=("none", "npo"), trials=1)
    assert run(made, out, Watch())["opened"] is False
    folder = Folder(out)
    assert not folder.screened.exists()
    # whatever the attacks show is called hopeless: nothing is opened
    monkeypatch.setattr(ranking, "worth_opening", lambda _sums, budget, _units: "quantized" not in budget)
    trials_screened = []
    for trials in (2, 4):
        assert run(replace(made, settings=replace(made.settings, trials=trials)), out, Watch())["opened"] is False
        screened = pl.read_parquet(folder.screened)
        assert screened.select("config", "query").is_unique().all()
        trials_screened.append(screened["config"].str.slice(0, 5).n_unique())
    assert trials_screened[1] > trials_screened[0]
