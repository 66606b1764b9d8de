"""Whole logs in the shape that evaluation tools write, with numbers of our own: what tests of published logs ask, for every checkout.

Means are worked out here from the definitions of each tool, in plain arithmetic.
"""

import gzip
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
import pytest

from froc.certification.certify import certify
from froc.formats import Format
from froc.formats._score_logs import Logs
from froc.plugins import make

ROWS, KEPT = 40, 60
RULES = {"forgetting": "forget_qa_rouge", "utility": "1-holdout_qa_rouge"}


def indexed(rows: list[dict[str, Any]], mean: float, **more: Any) -> dict[str, Any]:
    """A metric as OpenUnlearning writes it."""
    return {"agg_value": mean, "value_by_index": {str(number): row for number, row in enumerate(rows)}, **more}


def probabilities(draw: np.random.Generator, rows: int, options: int = 0) -> dict[str, Any]:
    """A probability per row, or several; the log's mean is of the rows' means."""
    values = draw.uniform(0.01, 0.99, (rows, options) if options else rows)
    written = [{"prob": v, "avg_loss": (-np.log(v)).tolist()} for v in values.tolist()]
    return indexed(written, fmean(fmean(v) if options else v for v in values.tolist()))


def ratios(draw: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
    """R may be anything above 0: its smaller side where rows were forgotten, one minus it elsewhere and never less than nothing."""
    values = draw.lognormal(0.0, 1.0, rows).tolist()
    shown = [min(r, 1 / r) for r in values] if split == "forget" else [max(0.0, 1 - r) for r in values]
    return indexed([{"score": r} for r in values], fmean(shown))


def overlaps(draw: np.random.Generator, rows: int) -> dict[str, Any]:
    """TOFU's mean is that of the recall of the longest common subsequence."""
    values = draw.uniform(0, 1, (rows, 3)).tolist()
    names = ("rouge1_recall", "rougeL_f1", "rougeL_recall")
    written = [
        dict(zip(names, row, strict=True)) | {"input": f"q{i}", "ground_truth": f"a{i}", "generation": "g"}
        for i, row in enumerate(values)
    ]
    return indexed(written, fmean(row[2] for row in values))


def attack(draw: np.random.Generator) -> dict[str, Any]:
    """Pairs of a forget row and a holdout row in which the forget row has the lower score, ties a half; some are ties."""
    forget, holdout = (np.round(draw.normal(mean, 1.0, n), 1).tolist() for mean, n in ((-0.5, ROWS), (0.0, KEPT)))
    auc = fmean(1.0 if f < h else 0.5 if f == h else 0.0 for f in forget for h in holdout)
    sides = {
        name: indexed([{"score": s} for s in scores], fmean(scores))
        for name, scores in (("forget", forget), ("holdout", holdout))
    }
    return {**sides, "auc": auc, "agg_value": auc}


def open_unlearning(seed: int) -> dict[str, Any]:
    """TOFU_EVAL.json with each kind of measure, and what has no rows."""
    draw = np.random.default_rng(seed)
    document: dict[str, Any] = {}
    for split, rows in (("forget", ROWS), ("retain", KEPT), ("ra", KEPT)):
        document[f"{split}_Q_A_Prob"] = probabilities(draw, rows)
        document[f"{split}_Q_A_PERT_Prob"] = probabilities(draw, rows, options=5 if split != "ra" else 3)
        document[f"{split}_Q_A_ROUGE"] = overlaps(draw, rows)
        document["forget_truth_ratio" if split == "forget" else f"{split}_Truth_Ratio"] = ratios(draw, rows, split)
    for name in ("exact_memorization", "extraction_strength"):
        values = draw.uniform(0, 1, ROWS).tolist()
        document[name] = indexed([{"score": v} for v in values], fmean(values))
    document |= {name: attack(draw) for name in ("mia_loss", "mia_min_k")}
    return document | {
        "privleak": {"agg_value": 12.5},
        "model_utility": {"agg_value": 0.4},
        "forget_quality": {"agg_value": None},
    }


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_has_the_mean_that_the_log_reports(seed: int, tmp_path: Path) -> None:
    document = open_unlearning(seed)
    path = tmp_path / "model" / "TOFU_EVAL.json.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    reader = make(Format, "open-unlearning")
    assert isinstance(reader, Logs)
    table = reader.measures([path])
    with_rows = {name for name, entry in document.items() if "value_by_index" in entry or "auc" in entry}
    assert len(with_rows) == 3 * 4 + 2 + 2
    for name in with_rows:
        row = table.filter(pl.col("measure") == name)
        assert row["mean"].item() == pytest.approx(document[name]["agg_value"], abs=1e-12), name
        assert row["queries"].item() == (KEPT if name.startswith(("retain", "ra")) else ROWS)
        assert row["missing"].item() == 0


def duet(draw: np.random.Generator, known: float, kept: float) -> dict[str, Any]:
    """DUET_EVAL.json of a model that still says so much of what should be gone, and so much of what should have stayed."""
    document = {}
    for name, rows, share in (("forget_qa_rouge", 300, known), ("holdout_qa_rouge", 200, kept)):
        values = (draw.random(rows) < share).astype(float).tolist()
        written = [
            {"rouge1_recall": v, "rougeL_f1": v, "rougeL_recall": v, "ground_truth": f"{name} {i}"}
            for i, v in enumerate(values)
        ]
        document[name] = indexed(written, fmean(values))
    return document


def test_of_ten_models_the_one_that_forgot_and_kept_is_certified(tmp_path: Path) -> None:
    """Five that forgot nothing, four that forgot everything, one that did what was asked."""
    draw = np.random.default_rng(0)
    shares = {f"ga_lr{i}e-5": (0.8, 0.9) for i in range(1, 6)} | {f"ga_lr{i}e-4": (0.02, 0.1) for i in range(1, 5)}
    for name, (known, kept) in (shares | {"npo_lr1e-4": (0.1, 0.9)}).items():
        folder = tmp_path / f"duet_Model_city_forget_5_{name}"
        folder.mkdir()
        (folder / "DUET_EVAL.json").write_text(json.dumps(duet(draw, known, kept)), encoding="utf-8")
    result = certify(tmp_path, 0.3, format="open-unlearning", loss=RULES, search_share=0.2)
    assert len(result.document["candidates"]) == 10
    assert result.certified == [result.chosen] == ["npo_lr1e-4"]
    assert result.document["design"] == {"kind": "split", "share": 0.2, "seed": 0}
    # about a fifth of the queries is for the search, and not for the claim
    assert result.document["n"] == pytest.approx({"forgetting": 240, "utility": 160}, rel=0.1)


def tofu(lost: int) -> dict[str, Any]:
    """eval_log_aggregated.json of 15 authors with 20 questions: all of an author's answers are known, or none is."""
    values = {str(i): float(i // 20 < lost) for i in range(300)}
    expected = {str(i): [f"q{i}", "said", f"true {i}"] for i in range(300)}
    return {"eval_log_forget.json": {"rougeL_recall": values, "generated_text": expected}}


def test_authors_are_units_of_tofu(tmp_path: Path) -> None:
    """15 authors of 20 questions: too few to certify, whatever pooling says, and pooling warns of it."""
    logs = []
    for name, lost in (("full", 14), ("retain90", 5)):
        logs.append(tmp_path / f"ft_phi_{name}_wd0")
        logs[-1].mkdir()
        (logs[-1] / "eval_log_aggregated.json").write_text(json.dumps(tofu(lost)), encoding="utf-8")
    rules = {"forgetting": "forget_rougeL_recall"}
    pooled = certify(logs, 0.5, format="tofu", loss=rules, named_beforehand=True)
    assert pooled.document["n"] == {"forgetting": 300}
    assert pooled.certified == ["retain90"]
    assert any("queries of the same unit have losses that are alike" in line for line in pooled.document["warnings"])
    grouped = certify(logs, 0.5, format="tofu", loss=rules, named_beforehand=True, unit="group")
    assert grouped.document["n"] == {"forgetting": 15}
    assert [row["empirical"]["forgetting"] for row in grouped.document["candidates"]] == pytest.approx(
        [14 / 15, 5 / 15], abs=1e-6
    )
    assert grouped.certified == []
