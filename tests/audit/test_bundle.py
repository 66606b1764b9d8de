"""Building a bundle: what it holds, what it must not hold, and what is refused."""

import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc import hashing
from froc.audit import bundle as evidence
from froc.audit import bundle_files, plan_signing, writing
from froc.audit import keys as signing
from froc.errors import InputError
from froc.loss_table import SCHEMA
from tests.audit import variants
from tests.audit.conftest import Made, make_run


def build(run: Path, keys: Path, now: Any, **more: Any) -> Path:
    return evidence.build(run, run.parent / "out", keys / "key", now=now, **more)


def test_a_bundle_holds_exactly_its_files_and_no_float(good: Any) -> None:
    assert {path.name for path in good.bundle.iterdir()} == set(bundle_files.LIMITS)
    assert good.bundle.name == "good.froc-audit"
    for name in ("report.dsse.json", "plan.dsse.json"):
        assert good.read(name)["predicate"]
    report = good.read()["predicate"]
    assert report["verdict"] == "PASS"
    assert report["certificate"]["budget"] == {"forgetting": "0.1", "utility": "0.15"}
    assert report["assuranceLevel"] == "self_attested"
    assert {item["name"] for item in good.read()["subject"]} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_losses_are_whole_numbers_of_calibration_rows_alone(good: Any) -> None:
    lines = (good.bundle / "losses.csv").read_text("ascii").splitlines()
    assert lines[0] == "config,split,risk,unit,query,loss"
    # of three candidates and the base model
    assert len(lines) == 1 + 4 * 480
    assert lines[1:] == sorted(lines[1:], key=lambda line: (*line.split(",")[:3], line.split(",")[4]))


def test_reasons_that_could_quote_a_row_or_a_path_are_left_out(good: Any) -> None:
    text = (good.bundle / "trials.jsonl").read_text()
    assert "/home" not in text
    assert "someone" not in text
    reasons = [json.loads(line)["reason"] for line in text.splitlines()]
    assert reasons == [None, None, "ValueError at froc.methods.npo:33", None, None, None]


def test_two_builds_differ_in_nothing(good: Any, keys: Path, tmp_path: Path, now: Any) -> None:
    again = evidence.build(good.run, tmp_path, keys / "key", name="good", now=now)
    for path in good.bundle.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("units", [49, 50])
def test_a_sample_that_may_tell_about_single_units_is_refused(
    good: Any, tmp_path: Path, keys: Path, now: Any, units: int
) -> None:
    run = Path(shutil.copytree(good.run, tmp_path / "run"))
    variants.stop_early(run, units)
    if units < 50:
        with pytest.raises(InputError, match=r"measured on 49 units.*--allow-small-sample"):
            build(run, keys, now)
    bundle = build(run, keys, now, small=units < 50)
    assert ("may tell about single ones" in (bundle / "report.html").read_text()) is (units < 50)


def test_the_forget_set_is_not_needed(good: Any, copy: Any) -> None:
    assert copy(good).verify(model=None).verdict == "PASS"


def test_a_plan_signed_before_the_run_is_kept(finished: Path, keys: Path, now: Any) -> None:
    signed = plan_signing.PlanSigner(finished, keys / "key").sign(now.replace(hour=8, minute=30))
    bundle = build(finished, keys, now)
    assert (bundle / "plan.dsse.json").read_bytes() == signed.read_bytes()
    with pytest.raises(InputError, match="signed once"):
        plan_signing.PlanSigner(finished, keys / "key").sign()


def test_a_plan_is_not_signed_once_trials_have_begun(finished: Path, keys: Path) -> None:
    assert "asserted" in plan_signing.PlanSigner(finished, keys / "key").before_first_trial()
    assert not (finished / "plan.dsse.json").exists()
    log = finished / "trials.jsonl"
    log.rename(finished / "kept")
    assert "signed before" in plan_signing.PlanSigner(finished, keys / "key").before_first_trial()
    signed = (finished / "plan.dsse.json").read_bytes()
    (finished / "kept").rename(log)
    assert "keeps the signature" in plan_signing.PlanSigner(finished, keys / "key").before_first_trial()
    assert (finished / "plan.dsse.json").read_bytes() == signed


def test_a_signature_that_is_not_ours_or_of_another_plan_is_refused(finished: Path, keys: Path) -> None:
    plan_signing.PlanSigner(finished, keys / "key").sign()
    with pytest.raises(InputError, match="was not signed with"):
        plan_signing.PlanSigner(finished, keys / "other")
    plan = finished / "plan.json"
    plan.write_text(plan.read_text().replace("0.15", "0.16"))
    with pytest.raises(InputError, match="is not about"):
        plan_signing.PlanSigner(finished, keys / "key")


def test_a_plan_signed_by_somebody_else_needs_their_key(finished: Path, keys: Path, now: Any) -> None:
    plan_signing.PlanSigner(finished, keys / "other").sign(now.replace(hour=8, minute=30))
    with pytest.raises(InputError, match="signature-threshold"):
        build(finished, keys, now)
    assert build(finished, keys, now, trusted=[keys / "other.pub"]).is_dir()


def test_nothing_is_overwritten_or_left_half_made(finished: Path, keys: Path, now: Any) -> None:
    bundle = build(finished, keys, now)
    assert bundle.name.startswith("embedded-")
    with pytest.raises(InputError, match="not overwritten"):
        build(finished, keys, now)
    (finished / "model" / "weights.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="model-code-or-pickle"):
        build(finished, keys, now, name="second")
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


@pytest.mark.parametrize(
    "name", ["certificate.json", "plan.json", "seal.json", "trials.jsonl", "losses/calibration.parquet"]
)
def test_a_missing_or_damaged_file_is_an_input_error(finished: Path, keys: Path, now: Any, name: str) -> None:
    (finished / name).write_bytes(b"{")
    with pytest.raises(InputError, match="again"):
        build(finished, keys, now)
    (finished / name).unlink()
    with pytest.raises(InputError):
        build(finished, keys, now)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2**40)


def _text_losses(path: Path) -> None:
    pl.read_parquet(path).with_columns(loss=pl.lit("none")).write_parquet(path)


def _endless(path: Path) -> None:
    path.write_text(path.read_text().replace('"number": 1', '"number": 1e400'))


def _listed_population(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"population": []}))


def _many_losses(path: Path) -> None:
    """Of a size on the disk that nobody notices."""
    table = pl.read_parquet(path)
    repeated = [
        pl.repeat(table[name][0], writing.RUN_ROWS + 1, dtype=table.schema[name]).alias(name) for name in SCHEMA
    ]
    pl.select(repeated).write_parquet(path)


SPOILED: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"a pipe as {name}": (name, _pipe) for name in ("plan.json", "seal.json", "trials.jsonl", "certificate.json")},
    **{f"an endless {name}": (name, _sparse) for name in ("plan.json", "certificate.json", "plan.dsse.json", "model/more.json")},
    "a pipe of losses": ("losses/calibration.parquet", _pipe),
    "losses in words": ("losses/calibration.parquet", _text_losses),
    "losses of the base model in words": ("losses/base.parquet", _text_losses),
    "a deep log": ("trials.jsonl", lambda path: path.write_text("[" * 200_000)),
    "a deep certificate": ("certificate.json", lambda path: path.write_text("[" * 200_000)),
    "an endless opening": ("certificate.json", _endless),
    **{f"a plan with {text}": ("plan.json", partial(Path.write_text, data=text)) for text in ('{"control": {}}', '["control"]', "5")},
    "a plan whose population is a list": ("plan.json", _listed_population),
    "very many equal losses": ("losses/calibration.parquet", _many_losses),
    "very many equal losses of the base model": ("losses/base.parquet", _many_losses),
    "a certificate of little": ("certificate.json", lambda path: path.write_text('{"opening": {"number": 1}}')),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_run_folder_that_somebody_spoiled_is_refused_at_once(finished: Path, keys: Path, now: Any, case: str) -> None:
    """Before anything waits for a pipe, or fills the memory."""
    name, spoil = SPOILED[case]
    path = finished / name
    before = path.read_bytes() if path.exists() else b""
    spoil(path)
    assert not path.is_file() or path.stat().st_size > 2**30 or path.read_bytes() != before
    with pytest.raises(InputError, match=rf"{re.escape(path.name)}|damaged file|plan-shape"):
        build(finished, keys, now)


def test_many_losses_are_counted_before_they_are_read(finished: Path, tmp_path: Path) -> None:
    path = finished / "losses" / "calibration.parquet"
    _many_losses(path)
    assert path.stat().st_size < 2**20
    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=f"holds {writing.RUN_ROWS + 1} losses"):
        writing.run_losses(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started < 2**19


@pytest.mark.parametrize("junk", [b"x", b"", b"\x30\x00", b"\x30\x82\x00\x02xx"])
def test_what_is_no_time_stamp_of_the_plan_is_not_signed(finished: Path, keys: Path, now: Any, junk: bytes) -> None:
    plan_signing.PlanSigner(finished, keys / "key").sign(now.replace(hour=8, minute=30))
    (finished / "plan.tsr").write_bytes(junk)
    with pytest.raises(InputError, match=r"plan\.tsr is no time stamp of the plan's signature"):
        build(finished, keys, now)
    (finished / "plan.tsr").unlink()
    build(finished, keys, now)


def test_a_run_folder_is_asked_for(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run folder"):
        evidence.build(tmp_path / "none", tmp_path, keys / "key")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="let froc search finish"):
        evidence.build(tmp_path / "empty", tmp_path, keys / "key")


def test_an_edited_certificate_is_refused(finished: Path, keys: Path, now: Any) -> None:
    path = finished / "certificate.json"
    document = json.loads(path.read_text())
    document["candidates"][0]["p_value"] /= 2
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="candidates does not follow"):
        build(finished, keys, now)


def test_edited_losses_are_refused(finished: Path, keys: Path, now: Any) -> None:
    path = finished / "losses" / "calibration.parquet"
    table = pl.read_parquet(path)
    table.head(len(table) - 1).write_parquet(path)
    with pytest.raises(InputError, match="table-missing-row"):
        build(finished, keys, now)


@pytest.mark.parametrize("place", ["/home/someone/model", "see ~/data/rows", "C:\\Users\\someone"])
def test_a_path_in_the_plan_is_refused(finished: Path, keys: Path, now: Any, place: str) -> None:
    old = hashing.sha256_file(finished / "plan.json")
    document = json.loads((finished / "plan.json").read_text())
    document["task"]["notes"] = [place]
    (finished / "plan.json").write_text(json.dumps(document))
    for name in ("trials.jsonl", "seal.json"):
        path = finished / name
        path.write_text(path.read_text().replace(old, hashing.sha256_file(finished / "plan.json")))
    with pytest.raises(InputError, match=r"plan\.json names a file path") as caught:
        build(finished, keys, now)
    assert "someone" not in str(caught.value)


@pytest.mark.parametrize("word", ["0.0001 .. 0.01 (log)", "1/3", "org/model", "query | group", "2026-03-01T08:00:00Z"])
def test_what_is_no_path_is_not_taken_for_one(word: str) -> None:
    assert not evidence._PLACE.search(word)


def test_a_readable_query_id_is_refused() -> None:
    table = pl.DataFrame(
        [("c0000", "forgetting", "m", "calibration", "0" * 16, "Who is Ann?", 0)],
        schema=["config", "risk", "metric", "split", "unit", "query", "loss"],
        orient="row",
    )
    with pytest.raises(Exception, match="table-example-id") as caught:
        bundle_files.write_losses(table, ["c0000"])
    assert "Ann" not in str(caught.value)


def test_a_report_on_another_candidate_covers_no_model(finished: Path, keys: Path, now: Any) -> None:
    bundle = build(finished, keys, now, config="c0000", name="other")
    body = json.loads(
        signing.verify((bundle / "report.dsse.json").read_bytes(), [signing.load_public(keys / "key.pub")])[0]
    )
    assert body["predicate"]["verdict"] == "FAIL"
    assert body["predicate"]["model"]["files"] == 0
    assert [item["name"] for item in body["subject"]] == ["plan.json"]
    with pytest.raises(InputError, match="c0001 alone"):
        build(finished, keys, now, config="c0003")
    with pytest.raises(InputError, match="was not tested"):
        build(finished, keys, now, config="c0002")


def test_a_name_stays_a_name(finished: Path, keys: Path, now: Any) -> None:
    for name in ("../out", "a/b", ".hidden", "", "x" * 80):
        if name:
            with pytest.raises(InputError, match="name"):
                build(finished, keys, now, name=name)


@pytest.mark.parametrize(
    ("more", "words"), [({"role": "boss"}, "no role is called 'boss'"), ({"sequence": 0}, "0 is no number of a report")]
)
def test_what_the_command_says_wrongly_is_not_said_of_the_evidence(
    finished: Path, keys: Path, now: Any, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        evidence.build(finished, finished.parent, keys / "key", now=now, **more)


def test_a_plan_that_took_something_from_an_earlier_run_verifies(keys: Path, tmp_path: Path, now: Any) -> None:
    like = {"plan": "a" * 64, "trials": "b" * 64, "options": {"trials": 5}, "splits": [], "first": []}
    run = make_run(tmp_path / "run", more={"like": like})
    made = Made(build(run, keys, now), run, keys / "key")
    assert json.loads((made.bundle / "plan.json").read_text(encoding="utf-8"))["like"] == like
    assert made.verify().verdict == "PASS"
