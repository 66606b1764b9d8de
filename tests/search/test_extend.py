"""A run that certified nothing goes on with fresh queries: certificate, refusals, kills, ledger, report."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.bounds import betting
from froc.data import fresh_queries
from froc.data.rows import Row
from froc.data.splits import EarlierSplit, SearchView, keyed_queries
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.loss_table import SCALE, place
from froc.measuring.metric import Observable, Observation
from froc.models import weights_digest
from froc.models.base import Base
from froc.reporting.drift import draw_drift
from froc.risk.positive_control import BASE
from froc.risk.rounding import up_p
from froc.search import drift
from froc.search.diagnosis import look
from froc.search.executors.inline import Inline
from froc.search.extend import extend
from froc.search.job import Job, runner_of
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.sealed.calibration import measure
from froc.search.sealed.further_stages import refuse_unextendable
from tests.search.small_search import Watch, job
from tests.small_model import SMALL

BUDGET = {FORGETTING: 0.1, UTILITY: 0.1}
"""What so few queries cannot show of a candidate that loses something."""
SETTINGS: dict[str, Any] = {"trials": 2, "extendable": True, "budget": BUDGET}
Rows = dict[str, tuple[Row, ...]]


@pytest.fixture(scope="module")
def place_of_run(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that certified nothing, and the openings that it counted."""
    folder = tmp_path_factory.mktemp("extendable")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(folder / "state"))
        patch.setattr("froc.search.sealed.ranking.worth_opening", lambda *_: True)
        certificate = run(job(base, **SETTINGS), folder / "run", Watch())
    assert certificate["chosen"] is None
    return folder


@pytest.fixture
def finished(place_of_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with a copy of its state folder."""
    shutil.copytree(place_of_run, tmp_path / "copy")
    monkeypatch.setenv("FROC_STATE", str(tmp_path / "copy" / "state"))
    return tmp_path / "copy" / "run"


def fresh(first: int, last: int) -> Rows:
    """Queries of the population that the task did not draw."""
    task, population = embedded_text.task(SMALL), embedded_text.population(SMALL)
    used = {row.key for rows in (task.forget, task.retain, *task.queries.values()) for row in rows}
    return {pool: tuple(row for row in rows if row.key not in used)[first:last] for pool, rows in population.items()}


def by_hand(folder: Path, config: str, risk: str, level: float) -> tuple[float, list[int]]:
    """p-value of the units of all stages, one stage after the other, and the ends of the stages."""
    tables = [pl.read_parquet(folder / "losses" / "calibration.parquet")]
    tables += [pl.read_parquet(path) for path in sorted((folder / "losses").glob("stage-*.parquet"))]
    parts = []
    for table in tables:
        rows = table.filter(pl.col("config") == config, pl.col("risk") == risk)
        losses = dict(zip(rows["query"], rows["loss"], strict=True))
        parts.append([losses[query] / SCALE for query in sorted(losses, key=place)])
    ends = np.cumsum([len(part) for part in parts])[:-1].tolist()
    values = np.array([[loss for part in parts for loss in part]])
    return up_p(float(betting.p_value_from_losses(values, BUDGET[risk], level, ends=tuple(ends))[0])), ends


def test_a_run_goes_on_stage_after_stage(
    base: Base, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((finished / "certificate.json").read_text())
    made = job(base, **SETTINGS)
    first = extend(made, finished, fresh(0, 60), Watch())
    second = extend(made, finished, {FORGETTING: fresh(60, 100)[FORGETTING]}, Watch())
    weights = [row["weight"] for row in second["candidates"]]
    assert [stage["n"] for stage in second["stages"]] == [{FORGETTING: 60, UTILITY: 60}, {FORGETTING: 40, UTILITY: 0}]
    assert second["n"] == {risk: before["n"][risk] + more for risk, more in ((FORGETTING, 100), (UTILITY, 60))}
    for was, then, row in zip(before["candidates"], first["candidates"], second["candidates"], strict=True):
        for risk in BUDGET:
            p, ends = by_hand(finished, row["config"], risk, 0.1 * row["weight"] / sum(weights))
            assert row["p_values"][risk] == p
            assert ends[0] == before["n"][risk]
            # nothing that was shown is taken back
            assert row["p_values"][risk] <= then["p_values"][risk] <= was["p_values"][risk]
            assert row["cur"][risk]["simultaneous"] <= was["cur"][risk]["simultaneous"] + 1e-6
    assert second["opening"] == before["opening"]
    assert "froc extend" in second["reason"] or second["closest"]["needs"]["further"] is None
    assert second["base"][FORGETTING]["n"] == second["n"][FORGETTING]
    # the same search in this folder finds the certificate of all stages
    assert run(made, finished, Watch()) == second

    # an outsider's losses of 0: certified, with the sealed weights
    monkeypatch.setattr(
        "froc.search.extend.measure", lambda *args: measure(*args).with_columns(loss=pl.lit(0, pl.Int16))
    )
    done = extend(made, finished, fresh(100, 400), Watch())
    chosen = next(row for row in done["candidates"] if row["config"] == done["chosen"])
    assert weights_digest.of_folder(finished / "model") == chosen["weights_digest"]
    assert not (finished / "weights").exists()
    with pytest.raises(InputError, match="nothing left to be continued"):
        extend(made, finished, fresh(400, 420), Watch())
    shutil.rmtree(finished / "model")
    assert run(made, finished, Watch()) == done

    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(finished, tmp_path, tmp_path / "key", small=True)
    result = verification.verify(bundle, keys=[tmp_path / "key.pub"], model=finished / "model")
    assert result.verdict == "PASS"
    assert "continued 3 times with fresh queries" in (bundle / "report.html").read_text()


def test_what_is_not_fresh_is_refused_before_anything_is_measured(base: Base, finished: Path) -> None:
    made, rows = job(base, **SETTINGS), fresh(0, 20)
    calibration = made.task.queries[FORGETTING][0]
    for spoilt, why in (
        (calibration, "one of the forgetting queries that the run had"),
        (replace(calibration, question=calibration.question.upper() + " ?"), "but for case, blanks or punctuation"),
        (made.task.forget[0], "one of the forget rows"),
        (made.task.retain[0], "one of the retain rows"),
        (rows[FORGETTING][3], "repeats"),
    ):
        with pytest.raises(InputError, match=why):
            extend(made, finished, {**rows, FORGETTING: (*rows[FORGETTING], spoilt)}, Watch())
    assert not (finished / "stages.json").exists()
    extend(made, finished, rows, Watch())
    with pytest.raises(InputError, match="measured in an earlier stage"):
        extend(made, finished, {FORGETTING: rows[FORGETTING][:1]}, Watch())
    # as a query of another kind, and with invisible characters
    for pool in (FORGETTING, UTILITY):
        with pytest.raises(InputError, match="measured in an earlier stage"):
            extend(
                made,
                finished,
                {pool: (replace(rows[FORGETTING][0], question=f"\ufe00{rows[FORGETTING][0].question}\u3164"),)},
                Watch(),
            )
    with pytest.raises(InputError, match="none of the fresh queries"):
        extend(made, finished, {FORGETTING: ()}, Watch())


def test_the_ledger_counts_them_once(base: Base, finished: Path, place_of_run: Path) -> None:
    looks = finished.parent / "state" / "openings" / "looks"
    made, rows = job(base, **SETTINGS), fresh(0, 20)
    # another run of the same plan may not look at what this one has measured
    other = Path(shutil.copytree(finished, finished.with_name("other")))
    extend(made, finished, rows, Watch())
    assert len(list(looks.iterdir())) == 2
    written = json.loads((looks / "000002.json").read_text())
    assert (written["number"], {pool: len(names) for pool, names in written["queries"].items()}) == (
        1,
        {FORGETTING: 20, UTILITY: 20},
    )
    seal = json.loads((other / "seal.json").read_text())
    (other / "seal.json").write_text(json.dumps({**seal, "trials": seal["trials"] + 1}))
    with pytest.raises(InputError, match="were opened before"):
        extend(made, other, rows, Watch())


def test_a_stage_that_was_begun_is_finished_with_the_same_queries(
    base: Base, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rows = job(base, **SETTINGS), fresh(0, 20)
    with monkeypatch.context() as killed:
        killed.setattr("froc.search.extend.measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extend(made, finished, rows, Watch())
    assert (finished / "stages.json").is_file()
    keys.keygen(tmp_path / "key", None)
    with pytest.raises(InputError, match="a stage was begun and not measured"):
        evidence.build(finished, tmp_path, tmp_path / "key", small=True)
    with pytest.raises(InputError, match="begun with other queries"):
        extend(made, finished, fresh(1, 21), Watch())
    other = Path(shutil.copytree(finished, finished.with_name("other")))
    # the losses are there, and the certificate is the old one
    with monkeypatch.context() as killed:
        killed.setattr("froc.search.extend.certify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extend(made, finished, rows, Watch())
    assert (finished / "losses" / "stage-2.parquet").is_file()
    assert extend(made, finished, rows, Watch()) == extend(made, other, rows, Watch())


def test_rows_of_another_population_are_refused_before_a_candidate_is_measured(
    base: Base, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rows = job(base, **SETTINGS), fresh(0, 200)
    before = (finished / "certificate.json").read_bytes()
    nothing = {FORGETTING: tuple(replace(row, answer="nothing") for row in rows[FORGETTING])}
    with monkeypatch.context() as watched:
        watched.setattr("froc.search.extend.measure", lambda *_: pytest.fail("a candidate was measured"))
        with pytest.raises(InputError, match="forgetting: these rows are not of the population"):
            extend(made, finished, nothing, Watch())
    assert (finished / "certificate.json").read_bytes() == before
    assert not (finished / "losses" / "stage-2.parquet").exists()
    # a stage of the same population goes on
    assert extend(made, finished, fresh(200, 220), Watch())["stages"][0]["n"][FORGETTING] == 20


@pytest.mark.parametrize(
    ("plan", "certificate", "why"),
    [
        ({"extendable": True}, None, "is not finished"),
        ({"extendable": True}, {"opened": False, "chosen": None}, "opened no calibration query"),
        ({}, {"chosen": None}, "does not say --extendable"),
        ({"extendable": True}, {"chosen": "c0001"}, "nothing left to be continued"),
    ],
)
def test_runs_that_cannot_go_on_are_refused_in_a_sentence(plan: Any, certificate: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        refuse_unextendable(plan, certificate)


def test_fresh_queries_are_read_by_pool(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": " a ", "pool": "forgetting" if i else "utility"} for i in range(3)]
    mixed, plain = tmp_path / "more.jsonl", tmp_path / "plain.jsonl"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain.write_text('{"question": "q9", "answer": "a"}\n')
    pools = (FORGETTING, UTILITY)
    read = fresh_queries.read([str(mixed), f"utility={plain}"], pools)
    assert {pool: [(row.question, row.answer) for row in of_pool] for pool, of_pool in read.items()} == {
        UTILITY: [("q0", "a"), ("q9", "a")], FORGETTING: [("q1", "a"), ("q2", "a")],
    }  # fmt: skip
    with pytest.raises(InputError, match="no column 'pool'"):
        fresh_queries.read([str(plain)], pools)
    mixed.write_text(json.dumps({**rows[0], "pool": "earlier"}) + "\n")
    with pytest.raises(InputError, match="no queries are called 'earlier'"):
        fresh_queries.read([str(mixed)], pools)


def test_groups_are_fresh_as_a_whole() -> None:
    task = replace(embedded_text.task(SMALL), units={FORGETTING: "query", UTILITY: "group"})
    of_known = {UTILITY: (Row("Anything new?", "no", group=task.queries[UTILITY][0].group.upper()),)}
    with pytest.raises(InputError, match="of a group that the run or an earlier stage has queries about"):
        fresh_queries.refuse_seen(task, of_known, [])
    with pytest.raises(InputError, match="names no group"):
        fresh_queries.refuse_seen(task, {UTILITY: (Row("Anything new?", "no"),)}, [])
    fresh_queries.refuse_seen(task, {UTILITY: (Row("Anything new?", "no", group="Nobody"),)}, [])
    names = fresh_queries.Names(task, "1" * 64)
    queries = [names.query(UTILITY, Row(text, "no", group="Nobody")) for text in ("One?", "Two?", "Three?")]
    assert len({query.unit for query in queries}) == 1
    earlier = (names, frozenset(query.id for query in queries), frozenset(query.unit for query in queries))
    with pytest.raises(InputError, match="or an earlier stage has queries about"):
        fresh_queries.refuse_seen(task, {UTILITY: (Row("Four?", "no", group="NOBODY"),)}, [earlier])
    fresh_queries.refuse_seen(task, {UTILITY: (Row("Four?", "no", group="Somebody"),)}, [earlier])
    with pytest.raises(InputError, match="has 3 fresh queries"):
        fresh_queries.refuse_large_groups({UTILITY: queries}, {UTILITY: 2})


def test_the_base_model_is_measured_on_every_stage(base: Base, finished: Path) -> None:
    extend(job(base, **SETTINGS), finished, fresh(0, 20), Watch())
    table = pl.read_parquet(finished / "losses" / "stage-2.parquet")
    assert table.filter(pl.col("config") == BASE).group_by("risk").len().sort("risk").rows() == [
        (FORGETTING, 20),
        (UTILITY, 20),
    ]


def test_how_far_states_moved_is_recorded_for_every_sealed_configuration(
    base: Base, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diagnostic: the certificate does not hang on it, and a failure is no error."""
    made, before = job(base, **SETTINGS), json.loads((finished / "drift.json").read_text())
    certificate = json.loads((finished / "certificate.json").read_text())
    assert [row["config"] for row in before["configurations"]] == [row["config"] for row in certificate["candidates"]]
    for row in before["configurations"]:
        assert set(row["search"]) == set(row["drift"]) == set(BUDGET)
        assert all(0 < of_pool["relative_l2"] < 10 and 0 < of_pool["cosine"] <= 2 for of_pool in row["drift"].values())
    path = draw_drift(tmp_path / "figures" / "drift.png", before, certificate)
    assert path.read_bytes().startswith(b"\x89PNG")
    folder, candidates = Folder(finished), certificate["candidates"]
    folder.drift.unlink()
    with closing(made.workers(lambda: runner_of(made))) as executor:
        with monkeypatch.context() as short:
            short.setattr("froc.search.drift.look", lambda *_: (_ for _ in ()).throw(MemoryError))
            drift.record(made, folder, executor, candidates)
        assert not folder.drift.exists()
        drift.record(made, folder, executor, candidates)
    assert folder.read(folder.drift) == before


def test_drift_is_measured_by_workers_on_a_sample_of_a_large_pool(
    base: Base, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's base model may stand on another device, and a real pool is large."""
    made, folder = job(base, **SETTINGS), Folder(finished)
    counts = json.loads(folder.drift.read_text())["queries"]
    folder.drift.unlink()
    monkeypatch.setattr(drift, "QUERIES", 5)
    sizes: list[int] = []

    def counted(base: Base, view: SearchView, rows: tuple[Row, ...], observables: frozenset[Observable]) -> Observation:
        sizes.append(len(rows))
        return look(base, view, rows, observables)

    monkeypatch.setattr(drift, "look", counted)
    runner, without_model = runner_of(made), cast(Job, SimpleNamespace(view=made.view))
    drift.record(
        without_model, folder, Inline(lambda: runner), json.loads(folder.certificate.read_text())["candidates"]
    )
    assert json.loads(folder.drift.read_text())["queries"] == {
        pool: len(range(0, n, -(-n // 5))) for pool, n in counts.items()
    }
    assert max(sizes) <= 5 < min(counts.values())


def test_what_did_not_move_has_no_drift() -> None:
    states = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    assert drift.drift(states, states) == {"relative_l2": 0.0, "cosine": 0.0}
    assert drift.drift(states, -states) == {"relative_l2": 2.0, "cosine": 2.0}
    assert drift.drift(states, 3 * states) == {"relative_l2": 2.0, "cosine": 0.0}
    assert drift.drift(states, 0 * states) == {"relative_l2": 1.0, "cosine": 1.0}


def test_what_the_search_that_this_one_began_like_would_have_looked_at_is_left_out(
    base: Base, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its rule, whichever file the rows stand in: its search queries helped to choose what is certified."""
    before = EarlierSplit(split_seed=11, share=0.5)
    monkeypatch.setattr("froc.search.prior_run.splits_of", lambda *_: (before,))
    made, rows = job(base, **SETTINGS), fresh(0, 40)
    certificate = extend(made, finished, rows, Watch())
    task = replace(made.task, queries=rows, split_seed=11)
    for risk in BUDGET:
        left = sum(query.place >= 0.5 for query in keyed_queries(task, risk))
        assert certificate["stages"][0]["n"][risk] == left
        assert 5 < left < 35
