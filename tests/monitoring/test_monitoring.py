"""The e-process against its definition and its promise; a state that survives whatever happens between two calls."""

import fcntl
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from froc.certification.certify import certify
from froc.errors import InputError
from froc.loss_table import SCALE, quantise
from froc.monitoring.e_process import BETS, follow, initial_capital, largest_excluded_budget, unstarted_fraction
from froc.monitoring.monitor import MonitoredStream, monitor
from froc.monitoring.state import MAX_COURSE_POINTS

CERTIFICATE = {
    "budget": {"forgetting": 0.1, "utility": 0.2}, "unit": {"forgetting": "query", "utility": "query"},
    "certified": ["c0", "c1"], "chosen": "c0",
}  # fmt: skip
Array = np.ndarray[Any, np.dtype[Any]]


def rows(losses: Array, start: int = 0, risk: str = "forgetting", **more: str) -> pl.DataFrame:
    """A loss table of losses in thousandths, in order of arrival, with ids from `start` on."""
    ids = [f"{risk}{start + i}" for i in range(len(losses))]
    frame = pl.DataFrame({"query": ids, "loss": losses / SCALE})
    return frame.with_columns(**{k: pl.lit(v) for k, v in ({"config": "c0", "risk": risk} | more).items()})


def lost(n: int, risk: float, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).random(n) < risk).astype(np.int16) * SCALE


def two_risks(n: int, start: int = 0, risk: float = 0.1) -> pl.DataFrame:
    return pl.concat([rows(lost(n, risk, start), start), rows(lost(n, 0.1, start + 1), start, "utility")])


# --- the e-process


def _by_definition(losses: Array, budget: float) -> list[float]:
    """E after each loss, from the sum over starts and bets."""
    results = []
    for t in range(1, len(losses) + 1):
        total = float(unstarted_fraction(t))
        for j in range(t):
            gains = 1 + BETS[:, None] / budget * (losses[None, j:t] / SCALE - budget)
            total += float(unstarted_fraction(j) - unstarted_fraction(j + 1)) * float(gains.prod(axis=1).mean())
        results.append(total)
    return results


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.7])
def test_it_is_what_its_definition_says(budget: float) -> None:
    losses = np.random.default_rng(1).integers(0, SCALE + 1, (3, 60)).astype(np.int16)
    path, _ = follow(losses, budget, initial_capital(3))
    for row, log_e in zip(losses, path, strict=True):
        np.testing.assert_allclose(np.exp(log_e), _by_definition(row, budget), rtol=1e-10)


def test_calls_in_parts_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = np.random.default_rng(2).integers(0, 300, (2, 500)).astype(np.int16)
    whole, end = follow(losses, 0.1, initial_capital(2))
    monkeypatch.setattr("froc.monitoring.e_process.BLOCK_LOSSES", 64)
    place, parts = initial_capital(2), []
    for part in (losses[:, :1], losses[:, 1:200], losses[:, 200:]):
        path, place = follow(part, 0.1, place)
        parts.append(path)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-9)
    np.testing.assert_allclose(place.logs, end.logs, atol=1e-9)
    assert place.count == 500


@pytest.mark.parametrize("budget", [0.1, 0.4])
def test_at_the_budget_its_expectation_is_one_after_every_loss(budget: float) -> None:
    """Over all sequences of ten 0-1 losses; below the budget it is smaller. So Ville's inequality holds."""
    losses = np.array(list(itertools.product([0, SCALE], repeat=10)), dtype=np.int16)
    path, _ = follow(losses, budget, initial_capital(len(losses)))
    ones = (losses == SCALE).sum(axis=1)
    for risk, expected in ((budget, 1.0), (budget / 2, None)):
        chance = risk**ones * (1 - risk) ** (10 - ones)
        mean = chance @ np.exp(path)
        if expected is None:
            assert (mean < 1.0).all()
        else:
            np.testing.assert_allclose(mean, expected, rtol=1e-9)


def _first(losses: Array, level: float = 0.05) -> Array:
    path, _ = follow(losses, 0.1, initial_capital(len(losses)))
    passed = path >= math.log(1 / level)
    return np.where(passed.any(axis=1), passed.argmax(axis=1) + 1.0, np.inf)


@pytest.mark.parametrize("kind", ["0-1", "continuous"])
def test_false_alarms_are_rare_and_true_ones_come(kind: str) -> None:
    """The small form of benchmarks/monitoring.py: looked at after every loss."""
    rng = np.random.default_rng(3)

    def draw(risk: float, streams: int) -> Array:
        if kind == "0-1":
            return (rng.random((streams, 2000)) < risk).astype(np.int16) * SCALE
        losses = rng.beta(2 * risk, 2 * (1 - risk), (streams, 2000))
        return np.floor(losses * SCALE + rng.random(losses.shape)).astype(np.int16)

    assert np.isfinite(_first(draw(0.1, 300))).mean() <= 0.05
    assert np.median(_first(draw(0.2, 50))) < 200


def test_a_late_drift_is_found_too() -> None:
    rng = np.random.default_rng(4)
    losses = (rng.random((50, 3000)) < np.where(np.arange(3000) < 2000, 0.03, 0.3)).astype(np.int16) * SCALE
    result = _first(losses)
    assert (result > 2000).all()
    assert np.median(result) < 2150


# --- what is said


def test_an_alarm_stays_and_says_where() -> None:
    table = rows(np.concatenate([lost(300, 0.05), np.full(40, SCALE, dtype=np.int16), np.zeros(400, dtype=np.int16)]))
    status = monitor(table, certificate=CERTIFICATE, risk=["forgetting"])
    item = status.state.risks["forgetting"]
    assert status.threshold == 20
    assert status.alarms == ("forgetting",)
    path, _ = follow(quantise(table["loss"].to_numpy())[None, :], 0.1, initial_capital())
    assert item.alarm == int((path[0] >= math.log(20)).argmax()) + 1
    assert item.e == pytest.approx(path[0, -1])
    assert item.e < math.log(20) < item.largest
    assert "ALARM" in str(status)


def test_risks_share_the_level() -> None:
    status = monitor(two_risks(50), certificate=CERTIFICATE, alarm=0.1)
    assert status.threshold == 20
    assert monitor(two_risks(50), certificate=CERTIFICATE, alarm=0.1, risk=["utility"]).threshold == 10
    assert list(status.state.risks) == ["forgetting", "utility"]


def test_the_lower_bound_is_where_the_evidence_reaches_its_threshold() -> None:
    status = monitor(rows(lost(500, 0.3)), certificate=CERTIFICATE, risk=["forgetting"])
    least, mean = status.at_least("forgetting"), status.state.risks["forgetting"].mean
    assert least is not None
    assert mean is not None
    assert 0.7 * mean < least < mean
    for budget, above in ((least - 1e-6, True), (least + 1e-6, False)):
        gains = 1 + BETS[:, None] / budget * (lost(500, 0.3)[None, :] / SCALE - budget)
        assert (gains.prod(axis=1).mean() >= status.threshold) == above
    assert monitor(rows(lost(5, 0.1)), certificate=CERTIFICATE).at_least("utility") is None


@pytest.mark.slow
def test_the_lower_bound_holds_whenever_one_looks() -> None:
    """Streams of one risk: how often the bound is ever above it, looked at twelve times."""
    rng = np.random.default_rng(6)
    streams = (rng.random((50, 120)) < 0.2) * SCALE
    looks = [[np.bincount(row[:n], minlength=SCALE + 1) for n in range(10, 121, 10)] for row in streams]
    missed = [max(largest_excluded_budget(counts.astype(float), 10.0) for counts in look) > 0.2 for look in looks]
    assert np.mean(missed) <= 0.1
    assert largest_excluded_budget(np.eye(SCALE + 1)[0] * 50, 10.0) == 0.0


def test_groups_count_once() -> None:
    grouped = CERTIFICATE | {"unit": {"forgetting": "group", "utility": "query"}}
    table = rows(np.array([SCALE, 0, 1, 0], dtype=np.int16)).with_columns(unit=pl.Series(["a", "b", "a", "b"]))
    status = monitor(table, certificate=grouped).state.risks["forgetting"]
    # 1001 / 2, rounded up; in the order in which groups first come
    assert status.counts == {"0": 1, "501": 1}
    path, _ = follow(np.array([[501, 0]], dtype=np.int16), 0.1, initial_capital())
    assert status.e == pytest.approx(path[0, -1])


# --- the state


def test_batches_are_one_stream(tmp_path: Path) -> None:
    kept = tmp_path / "monitor.json"
    for start in range(0, 900, 300):
        last = monitor(two_risks(300, start), certificate=CERTIFICATE, state=kept)
        assert (last.counted, last.skipped) == (600, 0)
    whole = monitor(pl.concat([two_risks(300, start) for start in range(0, 900, 300)]), certificate=CERTIFICATE)
    for risk, item in whole.state.risks.items():
        second = last.state.risks[risk]
        assert (item.n, item.counts, item.alarm, item.course[-1][:2]) == (
            second.n,
            second.counts,
            second.alarm,
            second.course[-1][:2],
        )
        assert item.e == pytest.approx(second.e, abs=1e-9)
        assert item.largest == pytest.approx(second.largest, abs=1e-9)


def test_no_row_is_counted_twice(tmp_path: Path) -> None:
    kept = tmp_path / "monitor.json"
    monitor(two_risks(100), certificate=CERTIFICATE, state=kept)
    before = kept.read_bytes()
    repeated = monitor(two_risks(100), certificate=CERTIFICATE, state=kept)
    assert (repeated.counted, repeated.skipped) == (0, 200)
    assert kept.read_bytes() == before
    grown = monitor(pl.concat([two_risks(100), two_risks(50, 100)]), certificate=CERTIFICATE, state=kept)
    assert (grown.counted, grown.skipped) == (100, 200)
    assert grown.state.risks["forgetting"].n == 150


def test_an_alarm_is_remembered(tmp_path: Path) -> None:
    kept = tmp_path / "monitor.json"
    monitor(rows(np.full(60, SCALE, dtype=np.int16)), certificate=CERTIFICATE, state=kept)
    later = monitor(rows(np.zeros(3000, dtype=np.int16), 60), certificate=CERTIFICATE, state=kept)
    assert later.alarms == ("forgetting",)
    item = later.state.risks["forgetting"]
    assert item.alarm is not None
    assert item.alarm < 10
    assert item.e < 0
    assert len(item.course) <= MAX_COURSE_POINTS


def test_a_call_that_is_killed_has_counted_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "monitor.json"
    monitor(two_risks(100), certificate=CERTIFICATE, state=kept)
    before = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("froc.atomic.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            monitor(two_risks(100, 100), certificate=CERTIFICATE, state=kept)
    assert kept.read_bytes() == before
    assert monitor(two_risks(100, 100), certificate=CERTIFICATE, state=kept).counted == 200


def test_two_calls_at_once_are_refused(tmp_path: Path) -> None:
    with (tmp_path / ".monitor.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="in use by another"):
            monitor(two_risks(10), certificate=CERTIFICATE, state=tmp_path / "monitor.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alarm": 0.01}, "another level"),
        ({"config": "c1"}, "another config"),
        ({"certificate": CERTIFICATE | {"chosen": "c1"}, "config": "c0"}, "another certificate"),
        ({"risk": ["forgetting"]}, "watches other risks"),
    ],
)
def test_a_state_of_another_stream_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    kept = tmp_path / "monitor.json"
    monitor(two_risks(100), certificate=CERTIFICATE, state=kept)
    before = kept.read_bytes()
    with pytest.raises(InputError, match=words):
        monitor(two_risks(10, 100), **{"certificate": CERTIFICATE, "state": kept, **options})
    assert kept.read_bytes() == before


def _damage(text: str, how: str) -> str:
    document = json.loads(text)
    item = document["risks"]["forgetting"]
    match how:
        case "torn":
            return text[:-40]
        case "word":
            return json.dumps(document | {"more": 1})
        case "count":
            item["counts"]["0"] += 1
        case "place":
            item["counts"] = {"-1": item["n"]}
        case "bets":
            item["logs"] = item["logs"][:-1]
        case "ids":
            document["seen"] = document["seen"][:-4]
        case "nan":
            item["e"] = math.nan
    return json.dumps(document)


@pytest.mark.parametrize("how", ["torn", "word", "count", "place", "bets", "ids", "nan"])
def test_a_damaged_state_is_refused(tmp_path: Path, how: str) -> None:
    kept = tmp_path / "monitor.json"
    monitor(two_risks(100), certificate=CERTIFICATE, state=kept)
    kept.write_text(_damage(kept.read_text(encoding="utf-8"), how), encoding="utf-8")
    with pytest.raises(InputError, match="no state of froc monitor, or damaged"):
        monitor(two_risks(10, 100), certificate=CERTIFICATE, state=kept)


def test_a_group_that_goes_on_after_it_was_counted_is_refused(tmp_path: Path) -> None:
    grouped = CERTIFICATE | {"unit": {"forgetting": "group", "utility": "query"}}
    kept = tmp_path / "monitor.json"
    monitor(rows(lost(4, 0.5), unit="a"), certificate=grouped, state=kept)
    assert monitor(rows(lost(4, 0.5), unit="a"), certificate=grouped, state=kept).skipped == 4
    with pytest.raises(InputError, match="come in one call"):
        monitor(rows(lost(4, 0.5), 4, unit="a"), certificate=grouped, state=kept)


# --- what is refused, what is printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"certificate": {}}, "lacks its budget"),
        ({"certificate": CERTIFICATE | {"budget": {"forgetting": 2.0}}}, "lacks its budget"),
        ({"certificate": CERTIFICATE | {"certified": [], "chosen": None}}, "certifies nothing"),
        ({"certificate": CERTIFICATE | {"budget": {"combined": 0.1}}}, "combined risk alone"),
        ({"config": "c7"}, "c7 is not certified; there are: c0, c1"),
        ({"config": "c1"}, "no rows of c1"),
        ({"alarm": 0.0}, "outside"),
        ({"risk": ["privacy"]}, "no budget for a risk 'privacy'"),
        ({"table": rows(lost(3, 0.5), split="search")}, "looked at by the search"),
        ({"certificate": "nowhere.json"}, "is not there"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        monitor(**{"table": two_risks(5), "certificate": CERTIFICATE, **options})


def test_a_run_folder_is_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text(json.dumps(CERTIFICATE), encoding="utf-8")
    two_risks(20).write_parquet(tmp_path / "losses.parquet")
    status = monitor(tmp_path / "losses.parquet", certificate=tmp_path)
    assert status.document() == monitor(two_risks(20), certificate=CERTIFICATE).document()


def test_it_prints_draws_and_is_json(tmp_path: Path) -> None:
    status: MonitoredStream = monitor(two_risks(200, risk=0.4), certificate=CERTIFICATE)
    assert "<table>" in status._repr_html_()
    assert json.loads(json.dumps(status.document()))["alarms"] == ["forgetting"]
    assert len(status.plot().axes) == 2
    status.save(tmp_path / "monitor.png")
    assert (tmp_path / "monitor.png").stat().st_size > 5000


def test_a_changed_digit_of_the_state_is_noticed(tmp_path: Path) -> None:
    """Numbers that contradict nothing else: a loss of another size, another capital. Files of older versions have no digest."""
    queries = [f"q{i}" for i in range(200)]
    rows = pl.DataFrame({"config": "c0001", "risk": "forgetting", "query": queries, "loss": 198 * [0.0] + 2 * [0.5]})
    certificate = certify(rows, budget=0.1, named_beforehand=True).document
    later = rows.with_columns(query=pl.lit("later ") + pl.col("query"))
    state = tmp_path / "state.json"
    monitor(rows, certificate=certificate, state=state)
    whole = json.loads(state.read_text())
    course = whole["risks"]["forgetting"]
    for change in ({"counts": {"0": 198, "501": 2}}, {"e": course["e"] + 0.001}, {"largest": 9.0}):
        state.write_text(json.dumps({**whole, "risks": {"forgetting": {**course, **change}}}))
        with pytest.raises(InputError, match="or damaged"):
            monitor(later, certificate=certificate, state=state)
    state.write_text(json.dumps({name: value for name, value in whole.items() if name != "digest"}))
    assert monitor(later, certificate=certificate, state=state).counted == 200
