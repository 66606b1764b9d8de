"""Results of the functions in Python: short to read, and a Polars table each."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import froc
import froc.search
from froc.comparison.result import Comparison
from froc.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
LOSSES = pl.DataFrame(
    {
        "config": ["a"] * 200, "risk": ["forgetting"] * 100 + ["utility"] * 100, "query": [f"q{i}" for i in range(200)],
        "loss": [0.0] * 200,
    }
)  # fmt: skip


def test_a_certificate() -> None:
    certificate = froc.certify(LOSSES, budget=0.1, named_beforehand=True)
    assert repr(certificate) == "Certificate(1 of 1 certified, chosen a)"
    assert certificate.to_polars().equals(certificate.table)


def test_a_plan() -> None:
    plan = froc.plan(0.1, expected_risk=0.02, units=200, candidates=3)
    table = plan.to_polars()
    assert set(table["risk"]) == {"forgetting", "utility"}
    assert table["power"].is_between(0, 1).all()
    assert table.height == sum(len(row.risks) * len(row.chances) for row in plan.ladder)
    assert repr(plan).startswith("Plan(3 candidates, needed forgetting=")


def test_a_stream() -> None:
    certificate = froc.certify(LOSSES, budget=0.1, named_beforehand=True)
    stream = froc.monitor(LOSSES, certificate=certificate.document)
    assert stream.to_polars().select("risk", "losses", "budget").rows() == [
        ("forgetting", 100, 0.1),
        ("utility", 100, 0.1),
    ]
    assert repr(stream) == "MonitoredStream('a', no alarm)"


def test_a_run_of_an_older_version() -> None:
    run = froc.load(ROOT / "tests" / "data" / "run-2026-11")
    assert run.to_polars().equals(run.trials)
    assert repr(run).startswith("Run(out='")
    assert len(repr(run)) < 300


def test_a_comparison(tmp_path: Path) -> None:
    interval = {"mean": 0.2, "lower": 0.1, "upper": 0.3}
    point: dict[str, Any] = {"mix": 0.5, "forgetting": interval, "utility": interval}
    document = {
        "stages": {"before": {"npo": point}, "0.9": {"npo": point}}, "ranking": {"0.9": {"methods": ["npo"], "tied": []}},
    }  # fmt: skip
    comparison = Comparison(tmp_path, document, ())
    table = comparison.to_polars()
    assert table.select("stage", "method", "mix", "forgetting_lower").rows() == [
        ("before", "npo", 0.5, 0.1),
        ("0.9", "npo", 0.5, 0.1),
    ]
    assert repr(comparison) == f"Comparison(out={str(tmp_path)!r}, npo)"


def test_options_of_search_are_taken_by_their_names() -> None:
    with pytest.raises(InputError, match="search share 2 is outside"):
        froc.search.run(0.1, search_share=2.0, weight={"forgetting": 1.0})
