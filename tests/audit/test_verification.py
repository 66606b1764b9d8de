"""A bundle that is left alone verifies; anything else names the check that failed.

Known ways to cheat are a table of their own, each refused once, by `tests.audit.test_checks`.
"""

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc import hashing
from froc.audit import bundle, bundle_files, cross_checks, verification
from froc.audit import keys as signing
from froc.data.splits import split
from froc.data.task import Row, Task
from froc.errors import InputError, VerificationError
from tests.audit import conftest
from tests.audit.cases import models, plans
from tests.audit.conftest import NOW, Made, make_run, of_base

MODEL = ("config.json", "model.safetensors", "tokenizer.json")
PLACES = (0.0, 0.13, 0.37, 0.5, 0.71, 0.93, 1.0)


def refused(made: Any, before: dict[str, str], **more: Any) -> str:
    """The check that refuses a mutant, which must differ from the original."""
    assert made.digests() != before, "the mutant changed nothing"
    with pytest.raises(VerificationError) as caught:
        made.verify(**more)
    assert "\n" not in str(caught.value)
    return caught.value.check


def test_bundles_verify(good: Any, failing: Any, short: Any) -> None:
    assert good.verify().verdict == "PASS"
    assert failing.verify().verdict == "FAIL"
    assert short.verify().verdict == "NOT_ESTABLISHED"


def test_the_result_says_what_was_checked(good: Any) -> None:
    result = good.verify()
    assert [cross_checks.STEPS[check.number - 1] for check in result.checks] == [check.name for check in result.checks]
    assert [check.number for check in result.checks] == [1, *range(3, 13), 14, 15, 16]
    assert [check.name for check in result.checks] == [
        "files", "signature", "statement", "dates", "evidence", "subject", "model", "plan", "seal", "trials", "losses",
        "statistics", "weights", "page",
    ]  # fmt: skip
    assert result.fingerprint == signing.load_public(good.public).keyid
    assert result.tree == hashing.sha256_tree(hashing.sha256_files(good.model))
    assert result.model_checked
    assert result.plan_status == "asserted-signed-after-run"
    assert not good.verify(model=None).model_checked


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bit", [0, 5])
@pytest.mark.parametrize("name", [*sorted(bundle_files.LIMITS), *MODEL])
def test_one_flipped_bit_anywhere_is_refused(good: Any, copy: Any, name: str, place: float, bit: int) -> None:
    made = copy(good)
    path = made.model / name if name in MODEL else made.bundle / name
    data = bytearray(path.read_bytes())
    data[round(place * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data)
    assert refused(made, good.digests())


@pytest.mark.parametrize("name", sorted(bundle_files.LIMITS))
@pytest.mark.parametrize("change", [lambda data: data + b"\n", lambda data: data[:-1], lambda data: b""])
def test_longer_shorter_and_empty_files_are_refused(
    good: Any, copy: Any, name: str, change: Callable[[bytes], bytes]
) -> None:
    made = copy(good)
    path = made.bundle / name
    path.write_bytes(change(path.read_bytes()))
    assert refused(made, good.digests())


# --- an outsider without a key ---------------------------------------------------------------------------------------


def test_links_and_special_files_in_the_bundle_are_refused(good: Any, copy: Any, tmp_path: Path) -> None:
    made = copy(good)
    path = made.bundle / "losses.csv"
    path.rename(tmp_path / "elsewhere.csv")
    path.symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(VerificationError, match="bundle-symlink-or-special"):
        made.verify()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(VerificationError, match="bundle-symlink-or-special"):
        made.verify()


def test_a_report_of_another_run_does_not_fit(good: Any, failing: Any, copy: Any) -> None:
    made = copy(failing)
    for name in ("report.dsse.json", "report.html"):
        (made.bundle / name).write_bytes((good.bundle / name).read_bytes())
    assert refused(made, failing.digests()).startswith("evidence-digest:")


# --- the model on disk -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", models.CHANGED)
def test_a_changed_model_leaves_the_report_about_the_other_one_true(good: Any, copy: Any, case: str) -> None:
    made = copy(good)
    models.CHANGED[case].attack(made)
    assert made.digests() != good.digests()
    assert made.verify(model=None).verdict == "PASS"


def test_links_in_the_model_count_as_the_regular_files_in_which_they_end(good: Any, copy: Any, tmp_path: Path) -> None:
    made = copy(good)
    (made.model / "config.json").rename(tmp_path / "config.json")
    (made.model / "config.json").symlink_to(tmp_path / "config.json")
    # a hub's cache is made of such links
    assert made.verify().verdict == "PASS"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(VerificationError, match="model-mismatch"):
        made.verify()
    (tmp_path / "config.json").unlink()
    with pytest.raises(VerificationError, match="model-symlink"):
        made.verify()
    (made.model / "config.json").unlink()
    (made.model / "config.json").write_bytes((good.model / "config.json").read_bytes())
    made.verify()
    (made.model / "more").symlink_to(tmp_path)
    with pytest.raises(VerificationError, match="model-symlink"):
        made.verify()


def test_a_report_without_a_model_fits_no_model(good: Any, failing: Any) -> None:
    with pytest.raises(VerificationError, match="model-mismatch"):
        failing.verify(model=good.model)


@pytest.mark.parametrize("name", ["failing", "short"])
@pytest.mark.parametrize("change", [lambda r: r.update(verdict="PASS"), lambda r: r["claims"][0].update(passed=True)])
def test_pass_over_anything_else_is_refused(
    request: pytest.FixtureRequest, copy: Any, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    original = request.getfixturevalue(name)
    made = copy(original)
    made.resign(change)
    assert refused(made, original.digests()) in ("verdict-differ", "claims-differ")


def test_an_unplanned_opening_cannot_be_called_the_first(short: Any, copy: Any) -> None:
    made = copy(short)
    made.resign(lambda report: report["certificate"]["opening"].update(number=1, statement="first"))
    assert refused(made, short.digests()) == "statistics-differ"


def test_resigning_alone_changes_nothing(good: Any, copy: Any) -> None:
    made = copy(good)
    made.resign()
    assert made.digests() == good.digests()
    assert made.verify().verdict == "PASS"


# --- keys, dates, arguments ---------------------------------------------------------------------------------------


def test_only_trusted_keys_count(good: Any, keys: Path) -> None:
    with pytest.raises(VerificationError, match="signature-threshold"):
        good.verify(keys=[keys / "other.pub"])
    assert good.verify(keys=[keys / "other.pub", keys / "key.pub"]).verdict == "PASS"
    for listed in (["key", "other"], ["key", "key"]):
        with pytest.raises(VerificationError, match="signature-threshold"):
            good.verify(keys=[keys / f"{name}.pub" for name in listed], threshold=2)
    with pytest.raises(InputError, match="threshold 0"):
        good.verify(threshold=0, keys=[keys / "other.pub"])


def test_one_key_under_two_names_is_one_key(good: Any, keys: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.pub"
    second.write_bytes((keys / "key.pub").read_bytes())
    with pytest.raises(VerificationError, match="signature-threshold"):
        good.verify(keys=[keys / "key.pub", second], threshold=2)


def test_dates_are_kept(good: Any, now: Any) -> None:
    for when, check in ((now + timedelta(days=400), "expired"), (now - timedelta(days=1), "issued-in-future")):
        with pytest.raises(VerificationError, match=check):
            good.verify(now=when)
    with pytest.raises(VerificationError, match="rollback"):
        good.verify(min_sequence=2)


PLAIN = "mean over queries"


@pytest.mark.parametrize(
    ("unit", "more", "words"),
    [
        ("group", {"estimand": {"forgetting": PLAIN, "utility": "mean of group means"}}, "mean of group means (over all queries: "),
        ("queries-by-group", {"estimand": {"forgetting": PLAIN, "utility": f"{PLAIN}, drawn by group"}, "largest": {"utility": 4}}, "drawn by group"),
    ],
)  # fmt: skip
def test_what_the_mean_is_of_is_planned_derived_and_said(
    unit: str, more: dict[str, Any], words: str, tmp_path: Path, keys: Path
) -> None:
    run = make_run(tmp_path / "run", task={"units": {"forgetting": "query", "utility": unit}}, more=more)
    made = Made(bundle.build(run, tmp_path, keys / "key", name="named", now=NOW), run, keys / "key")
    report = made.verify().report
    assert report["certificate"]["estimand"] == more["estimand"]
    page = (made.bundle / "report.html").read_text()
    assert f"For utility, what is bounded is the {more['estimand']['utility']}" in page
    assert words in page
    # neither another mean nor none at all goes with the plan
    for change in (
        lambda r: r["certificate"]["estimand"].update(utility=PLAIN),
        lambda r: r["certificate"].pop("estimand"),
        lambda r: [row.pop("empirical_queries") for row in r["certificate"]["candidates"]],
    ):
        forged = Made(shutil.copytree(made.bundle, tmp_path / "forged"), run, keys / "key")
        forged.resign(change)
        assert refused(forged, made.digests()) in ("statistics-differ", "feasible-differ")
        shutil.rmtree(forged.bundle)
    false = {"estimand": more["estimand"] | {"utility": PLAIN}}
    second_run = make_run(tmp_path / "other", task={"units": {"forgetting": "query", "utility": unit}}, more=more)
    _replan(second_run, json.loads((second_run / "plan.json").read_text()) | false)
    with pytest.raises(InputError, match="statistics-refused"):
        bundle.build(second_run, tmp_path, keys / "key", name="false", now=NOW)


def _half(losses: pl.DataFrame) -> pl.DataFrame:
    """The base model on the same queries: it lacks half of every retained answer, and hardly a forgotten one."""
    base = of_base(losses)
    lacks = pl.when(pl.col("risk") == "utility").then(pl.lit(500)).otherwise(pl.col("loss"))
    return base.with_columns(loss=lacks.cast(pl.Int16))


def _halved(losses: pl.DataFrame) -> pl.DataFrame:
    """Candidates that lose half as much of it as the usual ones."""
    part = pl.when(pl.col("risk") == "utility").then(pl.col("loss") // 2).otherwise(pl.col("loss"))
    return losses.with_columns(loss=part.cast(pl.Int16))


def test_a_share_of_what_the_base_scores_is_derived_from_its_signed_rows(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = conftest._losses
    monkeypatch.setattr(conftest, "_losses", lambda rates: _halved(usual(rates)))
    monkeypatch.setattr(conftest, "of_base", _half)
    named = {"relative": ["utility"], "estimand": {"forgetting": PLAIN, "utility": "mean of group means"}}
    run = make_run(tmp_path / "run", more=named)
    made = Made(bundle.build(run, tmp_path, keys / "key", name="share", now=NOW), run, keys / "key")
    result = made.verify()
    assert result.verdict == "PASS"
    certificate = result.report["certificate"]
    assert certificate["relative"] == ["utility"]
    row = next(candidate for candidate in certificate["candidates"] if candidate["config"] == certificate["chosen"])
    # the usual loss is .02 of all, here of half of it
    assert 0.01 < float(row["empirical"]["utility"]) < 0.05
    assert row["robust_radius"]["utility"] is None
    page = (made.bundle / "report.html").read_text()
    assert "is at most 15% of what the base model had" in page
    assert "a score above 0: the budget is a share of it" in page

    def better(text: str) -> str:
        """One row of the base model says that it scored more: a larger share may then be lost."""
        return text.replace(",500\n", ",0\n", 1)

    forged = Made(shutil.copytree(made.bundle, tmp_path / "forged"), run, keys / "key")
    forged.edit("losses.csv", better)
    assert refused(forged, made.digests()) == "evidence-digest:losses.csv"
    # signed again by a dishonest signer: no number goes with it any more
    forged.resign()
    assert refused(forged, made.digests()) == "statistics-differ"
    for change in (
        lambda r: r["certificate"].pop("relative"),
        lambda r: r["certificate"]["base"]["utility"].pop("relative"),
        lambda r: r["certificate"]["relative"].append("forgetting"),
    ):
        shutil.rmtree(forged.bundle)
        forged = Made(shutil.copytree(made.bundle, tmp_path / "forged"), run, keys / "key")
        forged.resign(change)
        assert refused(forged, made.digests()) == "statistics-differ"


def test_a_plan_with_a_share_of_what_cannot_be_lost_allows_no_certificate(tmp_path: Path, keys: Path) -> None:
    run = make_run(tmp_path / "run")
    _replan(run, json.loads((run / "plan.json").read_text()) | {"relative": ["forgetting"]})
    with pytest.raises(InputError, match="statistics-refused"):
        bundle.build(run, tmp_path, keys / "key", name="false", now=NOW)


def _replan(run: Path, plan: dict[str, Any]) -> None:
    """Another plan in a run folder, which its seal and trials name."""
    old = hashing.sha256_file(run / "plan.json")
    (run / "plan.json").write_text(json.dumps(plan, indent=2, sort_keys=True) + "\n")
    for name in ("seal.json", "trials.jsonl"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace(old, hashing.sha256_file(run / "plan.json")))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Any:
    """A bundle whose plan names an auditor's seed."""
    folder = tmp_path_factory.mktemp("drawn")
    run = make_run(folder / "run", task={"split_seed": 2**60 + 1, "seed_from": "auditor"})
    return Made(bundle.build(run, folder, keys / "key", name="drawn", now=NOW), run, keys / "key")


def test_an_auditors_seed_is_said_and_compared(drawn: Any, good: Any) -> None:
    assert drawn.verify(audit_seed=2**60 + 1).report["plan"]["auditSeed"] == str(2**60 + 1)
    assert f"seed {2**60 + 1}, which the plan says an auditor supplied" in (drawn.bundle / "report.html").read_text()
    assert "auditSeed" not in good.verify().report["plan"]
    assert "an auditor supplied" not in (good.bundle / "report.html").read_text()
    for made, seed in ((drawn, 7), (good, 0)):
        with pytest.raises(VerificationError, match="audit-seed-differs"):
            made.verify(audit_seed=seed)


def test_an_auditors_seed_cannot_be_claimed_or_hidden_afterwards(drawn: Any, good: Any, copy: Any) -> None:
    for original, change in (
        (good, lambda r: r["plan"].update(auditSeed="0")),
        (drawn, lambda r: r["plan"].pop("auditSeed")),
        (drawn, lambda r: r["plan"].update(auditSeed="7")),
    ):
        made = copy(original)
        made.resign(change)
        assert refused(made, original.digests()) == "plan-differ"
        shutil.rmtree(made.bundle)
        shutil.rmtree(made.run)


def test_the_order_of_an_auditors_draw_is_checked_in_older_plans() -> None:
    rows = {pool: tuple(Row(f"{pool} {i}", "yes") for i in range(20)) for pool in ("forgetting", "utility")}
    task = Task("t", (), (), rows, dict.fromkeys(rows, "query"), split_seed=7)
    view, sealed = split(task, 0.3, draw="in-order")
    picks = [("search", q.unit) for q in view.queries["utility"]]
    picks += [("calibration", unit) for risk, unit, _ in sealed.order.rows() if risk == "utility"]
    table = pl.DataFrame(picks, schema=["split", "unit"], orient="row")
    cross_checks._draw(table, "utility")
    moved = {picks[0][1]: "calibration", picks[-1][1]: "search"}
    picked = table.with_columns(split=pl.col("unit").replace_strict(moved, default=pl.col("split")))
    with pytest.raises(VerificationError, match="plan-draw"):
        cross_checks._draw(picked, "utility")


def test_arguments_that_cannot_be_used_are_input_errors(good: Any, tmp_path: Path) -> None:
    unusable: list[dict[str, Any]] = [{"keys": []}, {"keys": [tmp_path / "none.pub"]}, {"model": tmp_path / "none"}]
    for arguments in unusable:
        with pytest.raises(InputError):
            good.verify(**arguments)
    with pytest.raises(InputError):
        verification.verify(tmp_path / "none", keys=[good.public])


def test_a_plan_that_extends_another_is_said_to(good: Made, copy: Any) -> None:
    made = copy(good)
    plans._replan(lambda plan: plan.update(extends=["a" * 64]))(made)
    seen = {check.name: check.seen for check in made.verify().checks}
    assert "it extends 1 earlier one(s), which nobody here has seen" in seen["plan"]
    assert "extends" not in {check.name: check.seen for check in good.verify().checks}["plan"]
