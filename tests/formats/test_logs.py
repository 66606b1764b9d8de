"""Logs of other tools: what is read of them, what is made of it, and what is refused."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from froc.certification.certify import certify
from froc.errors import InputError
from froc.formats import Format, Read
from froc.formats._score_logs import Logs
from froc.plugins import make
from tests.conftest import SHARED

LOGS = SHARED / "data" / "eval_logs"
real = pytest.mark.skipif(not LOGS.is_dir(), reason="the logs are not at hand")
FORGET, KEPT = [0.1, 0.0, 0.4, 0.2], [1.0, 0.7, 0.9, 0.8]
RULES = {"forgetting": "forget_qa_rouge", "utility": "1-holdout_qa_rouge"}


def rouge(values: list[Any], reported: Any = None, truth: str = "answer") -> dict[str, Any]:
    """A metric as OpenUnlearning writes it."""
    rows = {
        str(i): {"rouge1_recall": v, "rougeL_f1": 0.5, "rougeL_recall": v, "ground_truth": f"{truth} {i}"}
        for i, v in enumerate(values)
    }
    return {"agg_value": float(np.mean(values)) if reported is None else reported, "value_by_index": rows}


def duet(forget: list[Any] = FORGET, kept: list[Any] = KEPT, **more: Any) -> dict[str, Any]:
    """A log of the DUET shape."""
    return {"forget_qa_rouge": rouge(forget), "holdout_qa_rouge": rouge(kept)} | more


def write(folder: Path, name: str, document: Any, *, packed: bool = False) -> Path:
    """A log file, in a folder of its run."""
    text = document if isinstance(document, str) else json.dumps(document)
    path = folder / name / ("DUET_EVAL.json.gz" if packed else "DUET_EVAL.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def read(path: Path, rules: Mapping[str, str] = RULES, kind: str = "open-unlearning", **more: Any) -> Read:
    """A folder of logs."""
    return make(Format, kind).read([path], rules, **more)


def thousandths(result: Read, config: str, risk: str) -> list[int]:
    """Losses in the order of the log."""
    return result.losses.filter(pl.col("config") == config, pl.col("risk") == risk)["loss"].to_list()


def test_scores_become_losses_by_rule(tmp_path: Path) -> None:
    """The score, one minus it, and what the base model's log had more."""
    write(tmp_path, "logs/duet_npo_lr1", duet())
    write(tmp_path, "logs/duet_ga_lr2", duet([0.9, 0.9, 0.9, 0.9]), packed=True)
    before = write(tmp_path, "before", duet(kept=[0.9, 0.9, 0.9, 0.9]))
    losses_read = read(tmp_path / "logs", RULES | {"harm": "base-holdout_qa_rouge"}, base=before)
    assert thousandths(losses_read, "npo_lr1", "forgetting") == [100, 0, 400, 200]
    assert thousandths(losses_read, "npo_lr1", "utility") == [0, 300, 100, 200]
    assert thousandths(losses_read, "npo_lr1", "harm") == [0, 200, 0, 100]
    assert thousandths(losses_read, "ga_lr2", "forgetting") == [900] * 4
    assert losses_read.losses["metric"].unique().sort().to_list() == [
        "1-holdout_qa_rouge",
        "base-holdout_qa_rouge",
        "forget_qa_rouge",
    ]
    assert [source.file for source in losses_read.sources["ga_lr2"]] == ["duet_ga_lr2/DUET_EVAL.json.gz"]


def test_no_text_of_a_log_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "one", duet())
    certificate = certify(tmp_path, 0.5, format="open-unlearning", loss=RULES)
    assert "answer" not in json.dumps(certificate.document)
    assert str(tmp_path) not in json.dumps(certificate.document)


def test_a_query_without_a_score_counts_as_one(tmp_path: Path) -> None:
    """Whichever way the rule turns scores, and it is said."""
    write(
        tmp_path, "one", {"forget_qa_rouge": rouge([0.1, None, 0.2], 0.15), "holdout_qa_rouge": rouge([0.5, None], 0.5)}
    )
    losses_read = read(tmp_path)
    assert thousandths(losses_read, "one", "forgetting") == [100, 1000, 200]
    assert thousandths(losses_read, "one", "utility") == [500, 1000]
    assert all("1 queries" in note and "counts as a loss of 1" in note for note in losses_read.notes)
    assert len(losses_read.notes) == 2


def test_what_the_base_model_has_no_score_for_is_said_whatever_the_rule(tmp_path: Path) -> None:
    """Its losses are the control: without a word, a base that was not measured looks like one that knew nothing."""
    log = write(tmp_path, "logs/one", duet())
    before = write(tmp_path, "before", duet() | {"holdout_qa_rouge": rouge([0.9, None, None, 0.9], 0.9)})
    notes = read(log.parent, base=before).notes
    assert [note for note in notes if "2 queries of holdout_qa_rouge have no score" in note and "base model" in note]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"forget_qa_rouge": {"agg_value": 0.1, "value_by_', ["no whole JSON"]),
        ("[]", ["no object of metrics"]),
        ({"forget_qa_rouge": 3}, ["forget_qa_rouge", "int"]),
        ({"forget_qa_rouge": {"value_by_index": []}}, ["forget_qa_rouge.value_by_index", "list"]),
        ({"forget_qa_rouge": {"value_by_index": {}}}, ["forget_qa_rouge.value_by_index", "no rows"]),
        ({"forget_qa_rouge": {"agg_value": 0.3}}, ["no measure"]),
        ({"forget_qa_rouge": {"value_by_index": {"0": {"rougeL_recall": "0.3"}}}}, ["row 0", "str"]),
        ({"forget_qa_rouge": {"value_by_index": {"0": {"rougeL_recall": 1.4}}}}, ["row 0", "outside"]),
        ({"forget_qa_rouge": {"value_by_index": {"0": {"rougeL_recall": 1.0}, "2": {"rougeL_recall": 1.0}}}}, ["2 rows", "number 1"]),
        ({"forget_qa_rouge": {"forget": {}, "holdout": {}}}, ["forget_qa_rouge.forget.value_by_index"]),
    ],
)  # fmt: skip
def test_a_broken_log_is_an_error_that_names_file_and_key(tmp_path: Path, document: Any, words: list[str]) -> None:
    path = write(tmp_path, "one", document)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert all(word in str(error.value) for word in (str(path), *words)), str(error.value)


def test_damaged_gzip_and_other_bytes_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "one", duet(), packed=True)
    whole = path.read_bytes()
    for data in (whole[:-20], whole[:12] + b"\0" * 8 + whole[20:], b"\xff\xfe{}"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"DUET_EVAL.json.gz: "):
            read(tmp_path)


def test_a_null_aggregate_is_no_harm_and_a_wrong_one_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a", duet(forget_qa_rouge=rouge(FORGET, float("nan"))))
    assert read(tmp_path, {"forgetting": "forget_qa_rouge"}).notes == ()
    write(tmp_path, "b", duet(forget_qa_rouge=rouge(FORGET, 0.05)))
    rules = {"forgetting": "forget_qa_rouge"}
    with pytest.raises(InputError, match=r"b: the log reports 0\.05 .* mean of 0\.175; .*--allow-other-mean"):
        read(tmp_path, rules)
    (note,) = make(Format, "open-unlearning", {"allow_other_mean": True}).read([tmp_path], rules).notes
    assert "b: the log reports 0.05" in note
    with pytest.raises(InputError, match="--allow-other-mean is not for --format table"):
        certify(tmp_path, 0.1, allow_other_mean=True)


def test_logs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    """The same file twice, other lengths, other questions, unknown measures, a base that is missing or several."""
    write(tmp_path, "x/a", duet())
    write(tmp_path, "x/b", duet())
    with pytest.raises(InputError, match="same file under two names"):
        read(tmp_path)
    write(tmp_path, "x/b", duet([0.1, 0.2]))
    with pytest.raises(InputError, match="b has 2 queries and a has 4"):
        read(tmp_path)
    write(tmp_path, "x/b", duet(forget_qa_rouge=rouge(FORGET, truth="other")))
    with pytest.raises(InputError, match="query forget-0 asks another question in b than in a"):
        read(tmp_path)
    write(tmp_path, "x/b", duet(KEPT))
    for rules, words in (
        ({"forgetting": "forget_qa_roug"}, "did you mean 'forget_qa_rouge'"),
        ({"utility": "base-holdout_qa_rouge"}, "give its log with --base"),
        ({}, "there are: forget_qa_rouge, "),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path, rules)
    with pytest.raises(InputError, match="logs of 2 models"):
        read(tmp_path, RULES, base=tmp_path)
    for path in (tmp_path / "none", tmp_path / "x" / "empty"):
        (tmp_path / "x" / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"does not exist|holds no"):
            read(path)


def lm_eval(rows: list[dict[str, Any]]) -> str:
    """Lines of a samples file."""
    return "\n".join(
        json.dumps({"doc_hash": f"h{row['doc_id']}", "metrics": ["acc", "probs"], "probs": [0.5], **row})
        for row in rows
    )


def test_the_harness_has_a_folder_per_model_and_a_file_per_task(tmp_path: Path) -> None:
    """Filters are told apart, lists per sample left out, documents need not begin at 0 nor stand in order."""
    for model, right in (("m1", 1.0), ("m2", 0.0)):
        (tmp_path / model).mkdir()
        once = [{"doc_id": i, "acc": right} for i in (7, 5, 6)]
        twice = [
            {"doc_id": i, "acc": right if name == "strict" else 0.5, "filter": name}
            for i in (0, 1)
            for name in ("strict", "loose")
        ]
        (tmp_path / model / "samples_wmdp_bio_2026-11-25T22-44-12.851255.jsonl").write_text(lm_eval(once))
        (tmp_path / model / "samples_gsm8k_2026-11-25T22-44-12.851255.jsonl").write_text(lm_eval(twice))
    rules = {"forgetting": "wmdp_bio.acc", "utility": "1-gsm8k.acc,strict", "loose": "gsm8k.acc,loose"}
    losses_read = read(tmp_path, rules, "lm-eval")
    assert thousandths(losses_read, "m1", "forgetting") == [1000] * 3
    assert thousandths(losses_read, "m2", "utility") == [1000] * 2
    assert thousandths(losses_read, "m1", "loose") == [500] * 2
    reader = make(Format, "lm-eval")
    assert isinstance(reader, Logs)
    assert sorted(reader.measures([tmp_path])["measure"].unique()) == [
        "gsm8k.acc,loose",
        "gsm8k.acc,strict",
        "wmdp_bio.acc",
    ]
    (tmp_path / "m1" / "samples_wmdp_bio_2026-11-26T22-44-12.851255.jsonl").write_text(
        lm_eval([{"doc_id": 5, "acc": 1.0}])
    )
    with pytest.raises(InputError, match=r"wmdp_bio.acc of this model is in another file"):
        read(tmp_path, rules, "lm-eval")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no line of samples"), ('{"acc": 1}', "line 1: the key doc_id"), ('{"doc_id": 1, "acc": 1}\n{"doc_id": 1, "acc": 0}', "twice"),
     ('{"doc_id": 1, "acc"', "no whole JSON")],
)  # fmt: skip
def test_broken_samples_are_errors(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "samples_t.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read(path, {"forgetting": "t.acc"}, "lm-eval")


def inspect(scores: list[Any], status: str = "success", model: str = "hf/llama") -> dict[str, Any]:
    """A log of Inspect, as far as it is read."""
    samples = [
        {
            "id": f"f{i // 2}",
            "epoch": 1 + i % 2,
            "target": "x",
            "scores": {} if value is None else {"choice": {"value": value}},
        }
        for i, value in enumerate(scores)
    ]
    return {"version": 2, "status": status, "eval": {"task": "evals/wmdp", "model": model}, "samples": samples}


def test_inspect_grades_become_numbers(tmp_path: Path) -> None:
    """Letters, booleans, numbers and several values per score; a sample asked twice is one query, of the mean."""
    path = tmp_path / "log.json"
    path.write_text(json.dumps(inspect(["C", "I", "P", True, 0.25, {"a": 1, "b": 0}])))
    losses_read = read(path, {"forgetting": "wmdp.choice", "kept": "wmdp.choice.a"}, "inspect")
    # C and I; P and true; 0.25 and no single value, which counts as 1
    assert thousandths(losses_read, "hf-llama", "forgetting") == [500, 750, 625]
    assert thousandths(losses_read, "hf-llama", "kept") == [1000] * 3
    assert (
        losses_read.losses["query"].to_list()[:3]
        == losses_read.losses["unit"].to_list()[:3]
        == ["wmdp-f0", "wmdp-f1", "wmdp-f2"]
    )
    assert [note for note in losses_read.notes if "no score" in note] == [
        "hf-llama: 1 queries of wmdp.choice have no score, or not all; what is missing counts as a loss of 1",
        "hf-llama: 3 queries of wmdp.choice.a have no score, or not all; what is missing counts as a loss of 1",
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (inspect(["C"], status="error"), "the key status says 'error'"),
        ({"status": "success", "eval": {"model": "m"}, "samples": [{}]}, "the key eval.task is missing"),
        (inspect([]), "the key samples is empty"),
        (inspect(["C"]) | {"samples": [{"id": "a"}]}, r"samples\[0\] has no key epoch"),
        (inspect(["C"]) | {"samples": inspect(["C"])["samples"] * 2}, "twice with the same epoch"),
    ],
)
def test_broken_inspect_logs_are_errors(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=words):
        read(path, {"forgetting": "wmdp.choice"}, "inspect")


@real
@pytest.mark.parametrize("path", sorted(LOGS.glob("*_unlearning_*/**/*_EVAL.json.gz")) + sorted(LOGS.glob("[dm]*/**/*_EVAL.json.gz")),
                         ids=lambda path: path.parent.name)  # fmt: skip
def test_what_is_read_has_the_mean_that_the_log_reports(path: Path) -> None:
    """Of every measure of every log of OpenUnlearning and its kin: rows were turned as the log's own mean does."""
    reader = make(Format, "open-unlearning")
    assert isinstance(reader, Logs)
    document = json.loads(gzip.decompress(path.read_bytes()))
    table = reader.measures([path])
    for name, entry in document.items():
        if "value_by_index" in entry or "auc" in entry:
            mean = table.filter(pl.col("measure") == name)["mean"].item()
            assert mean == pytest.approx(entry.get("auc", entry["agg_value"]), abs=1e-9), name


@real
def test_a_real_comparison_certifies_what_it_should(tmp_path: Path) -> None:
    """Ten unlearned 8B models: the one that forgot and kept is certified, those that forgot everything are not."""
    certificate = certify(LOGS / "duet_llama31_8b", 0.3, format="open-unlearning", loss=RULES, search_share=0.2)
    assert len(certificate.document["candidates"]) == 10
    assert certificate.certified == [certificate.chosen] == ["npo_lr1e-3_beta0p5_alpha1p0_gamma1p0"]
    assert certificate.document["design"] == {"kind": "split", "share": 0.2, "seed": 0}
    assert "npo_lr1e-3" in str(certificate)
    assert "<table" in certificate._repr_html_()
    assert len(certificate.plot().axes) == 2


@real
def test_authors_are_units_of_tofu(tmp_path: Path) -> None:
    """15 authors of 20 questions: too few to certify, whatever pooling says, and pooling warns of it."""
    logs = [LOGS / "tofu_original_phi15" / f"ft_epoch5_lr2e-05_phi_{name}_wd0" for name in ("full", "retain90")]
    rules = {"forgetting": "forget_rougeL_recall"}
    pooled = certify(logs, 0.5, format="tofu", loss=rules, named_beforehand=True)
    assert pooled.certified == ["retain90"]
    assert any("queries of the same unit have losses that are alike" in line for line in pooled.document["warnings"])
    grouped = certify(logs, 0.5, format="tofu", loss=rules, named_beforehand=True, unit="group")
    assert grouped.document["n"] == {"forgetting": 15}
    assert grouped.certified == []


def sample(seed: int, configs: int = 6, units: int = 60) -> pl.DataFrame:
    """Losses of both risks on shared units of two queries, one split."""
    draw = np.random.default_rng(seed)
    rows = [
        {"config": f"c{c}", "risk": risk, "query": f"{risk}-{u}-{k}", "unit": f"u{u}", "loss": int(draw.integers(0, 300)) / 1000}
        for c in range(configs) for risk in ("forgetting", "utility") for u in range(units) for k in range(2)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_a_search_share_divides_by_units_and_orders_by_its_rows_alone() -> None:
    """No unit in both splits, the same for all risks; calibration losses can change neither order nor weights."""
    losses = sample(0)
    certificate = certify(losses, 0.3, search_share=0.25, unit="group").document
    order = [(row["config"], row["weight"]) for row in certificate["candidates"]]
    assert [weight for _, weight in order] == [1 / k for k in range(1, 7)]
    from froc.certification.certify import Division
    from froc.loss_table import check

    split = Division(0.25).of(check(losses))
    assert split.group_by("unit").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 60
    # random around 45 of 60: four standard deviations
    assert (
        certificate["n"]["forgetting"]
        == certificate["n"]["utility"]
        == split.filter(pl.col("split") == "calibration")["unit"].n_unique()
    )
    assert abs(certificate["n"]["utility"] - 45) < 4 * (60 * 0.25 * 0.75) ** 0.5
    calibration = split.filter(pl.col("split") == "calibration").select("query").unique()
    moved = losses.with_columns(
        loss=pl.when(pl.col("query").is_in(calibration["query"].implode()))
        .then(0.3 - pl.col("loss"))
        .otherwise(pl.col("loss"))
    )
    second = certify(moved, 0.3, search_share=0.25, unit="group").document
    assert [(row["config"], row["weight"]) for row in second["candidates"]] == order
    assert second["candidates"] != certificate["candidates"]
    assert certify(losses, 0.3, search_share=0.25, split_seed=1, unit="group").document != certificate


def test_one_split_asks_how_configurations_were_chosen(tmp_path: Path) -> None:
    """Logs of several models: a list named beforehand, all alike, or a division; nothing is taken for granted."""
    for name, worse in (("a", 0.0), ("b", 0.1)):
        write(tmp_path, name, duet([v + worse for v in FORGET] * 20, KEPT * 20))
    with pytest.raises(InputError, match="--named-beforehand"):
        certify(tmp_path, 0.4, format="open-unlearning", loss=RULES)
    named = certify(tmp_path, 0.4, format="open-unlearning", loss=RULES, named_beforehand=True).document
    assert [row["weight"] for row in named["candidates"]] == [1.0, 1.0]
    assert named["design"] == {"kind": "named-beforehand"}
    assert named["n"]["forgetting"] == 80
    assert any("does not hold" in line for line in named["warnings"])
    # a loss table is its owner's list
    owned = certify(sample(0), 0.4).document
    assert owned["design"] == named["design"]
    assert any("does not hold" in line for line in owned["warnings"])
    split = certify(tmp_path, 0.4, format="open-unlearning", loss=RULES, search_share=0.2).document
    assert abs(split["n"]["forgetting"] - 64) < 4 * (80 * 0.2 * 0.8) ** 0.5
    assert not any("does not hold" in line for line in split["warnings"])
    with pytest.raises(InputError, match="divided into search and calibration already"):
        certify(sample(0).with_columns(split=pl.when(pl.col("unit") < "u3").then(pl.lit("search")).otherwise(pl.lit("calibration"))),
                0.3, search_share=0.2)  # fmt: skip
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="outside"):
            certify(sample(0), 0.3, search_share=share)
