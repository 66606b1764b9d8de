"""Calibration: in rounds, about listed populations, and out of reach of whoever tries after the seal."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.data import ledger_files, opening_ledger
from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY
from froc.data.tasks import embedded_text
from froc.errors import InputError, VerificationError
from froc.loss_table import SCALE, check
from froc.models.base import Base
from froc.risk.certificate import Candidate, Claim, certify
from froc.search.job import Job
from froc.search.optuna.space import build, choose
from froc.search.pipeline import run
from froc.search.sealed import ranking
from froc.search.settings import Settings
from tests.search.small_search import BUDGET, Watch
from tests.small_model import SMALL


def job(base: Base, **overrides: Any) -> Job:
    """As in test_run, with populations."""
    settings_of_job = Settings(
        **{"budget": BUDGET, "trials": 4, "methods": ("npo", "grad_diff"), "batch": 16, **overrides}
    )
    task = embedded_text.task(SMALL, overrides.get("seed", 0) + 50)
    view, sealed = split(task, settings_of_job.share, settings_of_job.sample)
    methods, notes = choose(settings_of_job.methods, view)
    return Job(
        base,
        task,
        view,
        sealed,
        build(methods, {"lr": (2e-3, 8e-3), "epochs": (2, 4)}, {}),
        settings_of_job,
        tuple(notes),
    )


ROOM = dict.fromkeys(BUDGET, 0.45)
"""Budgets about twice what four short trials reach: something is certified whichever queries the draw gives."""
KINDS: dict[str, dict[str, Any]] = {
    "sequential": {"sequential": True, "budget": ROOM},
    "census and sample": {"population": {FORGETTING: "census", UTILITY: "sample"}, "sample": {UTILITY: 60}},
    "combined, within a radius": {"budget": ROOM | {"combined": 0.4}, "weights": dict.fromkeys(BUDGET, 0.5), "radius": 0.02},
}  # fmt: skip


def _made(base: Base, place: Path, **overrides: Any) -> Path:
    """A finished run and the openings that it counted, to be taken by tests that change them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place / "state"))
        run(job(base, **overrides), place / "run", Watch())
    return place


@pytest.fixture(scope="module")
def plain(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(base, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sequential(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(base, tmp_path_factory.mktemp("sequential"), **KINDS["sequential"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_claim_runs_to_a_certificate_that_verifies(
    base: Base, sequential: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "run"
    if kind == "sequential":
        shutil.copytree(sequential, tmp_path, dirs_exist_ok=True)
        certificate = json.loads((out / "certificate.json").read_text())
    else:
        certificate = run(job(base, **KINDS[kind]), out, Watch())
    assert certificate["chosen"] in certificate["certified"]
    assert run(job(base, **KINDS[kind]), out, Watch()) == certificate
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key", small=kind == "sequential")
    result = verification.verify(bundle, keys=[tmp_path / "key.pub"], model=out / "model")
    assert result.verdict == "PASS"
    if kind == "sequential":
        spent = certificate["sequential"]
        assert 0 < spent["measured"] <= spent["planned"]
        assert spent["saved"] == spent["planned"] - spent["measured"]
        assert ("Measuring stopped early" in (bundle / "report.html").read_text()) == (spent["saved"] > 0)
    if kind == "census and sample":
        assert certificate["population"] == {FORGETTING: "census", UTILITY: "sample"}
        assert certificate["n"] == {FORGETTING: 150, UTILITY: 60}
        assert certificate["listed"] == {FORGETTING: 150, UTILITY: 150}
        row = certificate["candidates"][0]
        assert row["cur"][FORGETTING]["simultaneous"] == pytest.approx(row["empirical"][FORGETTING], abs=2e-6)


def test_early_stopping_may_not_leave_units_out(sequential: Path, tmp_path: Path) -> None:
    """A sequential run of which the query that was to be measured first is dropped: neither certificate nor bundle comes of it."""
    out = shutil.copytree(sequential, tmp_path, dirs_exist_ok=True) / "run"
    path = out / "losses" / "calibration.parquet"
    table, order = pl.read_parquet(path), json.loads((out / "seal.json").read_text())["order"]
    measured = set(table.select("risk", "query").iter_rows())
    risk, query = next((risk, query) for risk, _, query in order if (risk, query) in measured)
    table.filter((pl.col("risk") != risk) | (pl.col("query") != query)).write_parquet(path)
    keys.keygen(tmp_path / "key", None)
    with pytest.raises((InputError, VerificationError), match="statistics-refused"):
        evidence.build(out, tmp_path, tmp_path / "key", small=True)


def test_a_sealed_order_is_the_order_of_the_sealed_queries(sequential: Path, tmp_path: Path) -> None:
    out = shutil.copytree(sequential, tmp_path, dirs_exist_ok=True) / "run"
    keys.keygen(tmp_path / "key", None)
    seal = json.loads((out / "seal.json").read_text())
    measured = set(pl.read_parquet(out / "losses" / "calibration.parquet")["query"])
    at, (risk, _, query) = next((at, row) for at, row in enumerate(seal["order"]) if row[2] in measured)
    others = [*seal["order"][:at], *seal["order"][at + 1 :]]
    for order, name in (
        (others, "seal-order"),
        ([[risk, "0" * 16, query], *others], "statistics-refused"),
        (None, "seal-order"),
    ):
        (out / "seal.json").write_text(json.dumps(seal | {"order": order}))
        with pytest.raises(InputError, match=name):
            evidence.build(out, tmp_path, tmp_path / "key")


def test_samples_and_populations_go_together(base: Base, tmp_path: Path) -> None:
    for overrides, why in (
        ({"sample": {UTILITY: 60}}, "go together"),
        ({"population": {UTILITY: "sample"}}, "go together"),
        ({"procedure": "benjamini-yekutieli"}, "certifies nothing that could be deployed"),
        ({"budget": {"combined": 0.1}, "weights": dict.fromkeys(BUDGET, 0.5)}, "single risks"),
    ):
        with pytest.raises(InputError, match=why):
            run(job(base, **overrides), tmp_path / "run", Watch())


def test_another_share_or_sample_is_another_look_at_the_same_queries(base: Base, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    for overrides in ({"share": 0.25}, {"population": {UTILITY: "sample"}, "sample": {UTILITY: 100}}):
        with pytest.raises(InputError, match=r"were opened before \(1 time"):
            run(job(base, **overrides), tmp_path / "two", Watch())


N = 60
COUNTS = st.lists(st.integers(0, N), min_size=2, max_size=4)
MOVES = st.sampled_from(
    ["reorder candidates", "drop a candidate", "reweigh", "other budget", "drop a query", "row order"]
)


def _losses(counts: list[int], seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for i, count in enumerate(counts):
        loss = (rng.permutation(N) < count).astype(np.int16) * SCALE
        parts.append(
            pl.DataFrame({"query": [f"q{q}" for q in range(N)], "loss": loss}).with_columns(
                config=pl.lit(f"c{i}"), risk=pl.lit("forgetting")
            )
        )
    return check(pl.concat(parts), "thousandths")


@given(counts=COUNTS, move=MOVES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_nothing_after_the_seal_can_move_the_certificate(counts: list[int], move: str, seed: int) -> None:
    """Whoever has seen the calibration losses and changes what is tested, in what order or at what level is found out.

    The seal is a digest over candidates, order and weights, and the plan over level, budget and queries: a changed
    one asks another question, which is another opening; a table without a query is not of the sealed queries; and the
    rows' order changes nothing at all.
    """
    table = _losses(counts, seed)
    candidates = [Candidate(f"c{i}", "npo", {}, 1 / (i + 1)) for i in range(len(counts))]
    claim = Claim({"forgetting": 0.3}, {"forgetting": "binomial"}, {"forgetting": "query"})
    queries = {"forgetting": "of these queries"}

    def seal(sealed: list[Candidate]) -> dict[str, Any]:
        return ranking.document(sealed, plan="p", losses="l", trials=9, queries=queries)

    honest, question = certify(table, candidates, claim), ranking.question(seal(candidates), "plan")
    pool = ledger_files.Counted({"forgetting": frozenset({f"{counts} {move} {seed}"})})
    opening_ledger.record(pool, "plan", question, 1, reopen=False)
    assert opening_ledger.record(pool, "plan", question, 1, reopen=False).number == 1
    best_first = sorted(candidates, key=lambda c: counts[int(c.config[1:])])
    if move == "row order":
        again = table.sample(fraction=1, shuffle=True, seed=seed)
        assert certify(again, candidates, claim) == honest
        return
    if move == "drop a query":
        with pytest.raises(InputError, match="not all measured"):
            certify(table.filter((pl.col("query") != "q0") | (pl.col("config") != "c0")), candidates, claim)
        return
    changed = {
        "reorder candidates": best_first[::-1] if best_first == candidates else best_first,
        "drop a candidate": candidates[:-1],
        "reweigh": [Candidate(c.config, c.method, c.params, c.weight / 2) for c in candidates],
    }.get(move, candidates)
    plan = "another plan" if move == "other budget" else "plan"
    with pytest.raises(InputError, match=r"were opened before \(1 time"):
        opening_ledger.record(pool, plan, ranking.question(seal(changed), plan), 1, reopen=False)


def test_a_seal_that_is_rewritten_after_calibration_is_another_opening(base: Base, plain: Path, tmp_path: Path) -> None:
    """The run folder belongs to the user: even so, a better order or fewer candidates come too late."""
    out = shutil.copytree(plain, tmp_path, dirs_exist_ok=True) / "run"
    seal = json.loads((out / "seal.json").read_text())
    assert len(seal["candidates"]) > 1
    for changed in (seal["candidates"][::-1], seal["candidates"][:1]):
        (out / "certificate.json").unlink(missing_ok=True)
        (out / "seal.json").write_text(json.dumps(seal | {"candidates": changed}))
        with pytest.raises(InputError, match=r"were opened before \(1 time"):
            run(job(base), out, Watch())
        assert not (out / "certificate.json").exists()
