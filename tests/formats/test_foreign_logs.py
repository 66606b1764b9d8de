"""What tools really write: membership attacks and truth ratios without scores or in other forms, local models, epochs, lists."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from froc.certification.certify import certify
from froc.errors import InputError
from froc.formats import Format, Read
from froc.formats._score_logs import Logs
from froc.plugins import make
from tests.formats.test_format_contract import archive

NAN = float("nan")


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def read(kind: str, path: Path, rules: dict[str, str], base: Path | None = None) -> Read:
    return make(Format, kind).read([path], rules, base)


def losses(result: Read, config: str | None = None) -> list[int]:
    rows = result.losses if config is None else result.losses.filter(config=config)
    return rows["loss"].to_list()


# --- OpenUnlearning


def indexed(scores: list[Any], agg: Any = None) -> dict[str, Any]:
    return {"agg_value": agg, "value_by_index": {str(i): {"score": s} for i, s in enumerate(scores)}}


def attack(forget: list[Any], holdout: list[Any], auc: Any = None) -> dict[str, Any]:
    return {"mia_loss": {"forget": indexed(forget), "holdout": indexed(holdout), "auc": auc}}


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf, None])
@pytest.mark.parametrize("rule", ["mia_loss", "1-mia_loss"])
def test_no_rank_is_given_to_a_row_without_a_score(bad: Any, rule: str, tmp_path: Path) -> None:
    """Sorted or searched for, a NaN stands above every score: a diverged model had no row that an attack could tell."""
    torn = write(tmp_path / "X_EVAL.json", attack([3.0, bad, bad], [1.0, 2.0]))
    losses_read = read("open-unlearning", torn, {"privacy": rule})
    assert losses(losses_read)[1:] == [1000, 1000]
    assert any("2 queries of mia_loss" in note for note in losses_read.notes)
    # without one of the holdout's scores nobody's rank is known
    torn = write(tmp_path / "X_EVAL.json", attack([3.0, 0.0], [1.0, bad]))
    losses_read = read("open-unlearning", torn, {"privacy": rule})
    assert losses(losses_read) == [1000, 1000]
    assert any("1 of 2 holdout rows of mia_loss" in note for note in losses_read.notes)


def test_ranks_are_what_the_auc_is_the_mean_of(tmp_path: Path) -> None:
    path = write(tmp_path / "X_EVAL.json", attack([0.0, 1.0, 5.0], [1.0, 2.0], 1.75 / 3))
    assert losses(read("open-unlearning", path, {"privacy": "mia_loss"})) == [1000, 750, 0]
    write(path, attack([0.0, 1.0, 5.0], [1.0, 2.0], 0.2))
    with pytest.raises(InputError, match="--allow-other-mean"):
        read("open-unlearning", path, {"privacy": "mia_loss"})


def ratio(scores: list[Any], agg: Any, name: str = "retain_Truth_Ratio") -> dict[str, Any]:
    return {name: indexed(scores, agg)}


def test_truth_ratios_have_the_form_whose_mean_is_reported(tmp_path: Path) -> None:
    """wrong / correct, or correct / (correct + wrong): the second one, read as the first, is a loss of 1 minus itself."""
    path, rules = tmp_path / "X_EVAL.json", {"utility": "1-retain_Truth_Ratio"}
    write(path, ratio([0.1, 0.3], 0.8))
    assert losses(read("open-unlearning", path, rules)) == [100, 300]
    write(path, ratio([0.1, 0.3], 0.2))
    losses_read = read("open-unlearning", path, rules)
    assert losses(losses_read) == [900, 700]
    assert any("correct/(correct+wrong)" in note for note in losses_read.notes)
    # above 1 a score can only be a ratio
    write(path, ratio([0.1, 5.0], 0.45))
    assert losses(read("open-unlearning", path, rules)) == [100, 1000]
    # on the forget set both forms are the same below 1
    write(path, ratio([0.1, 0.3], 0.2, "forget_truth_ratio"))
    assert losses(read("open-unlearning", path, {"forgetting": "forget_truth_ratio"})) == [100, 300]


@pytest.mark.parametrize(
    ("scores", "agg"), [([0.1, 0.3], None), ([0.1, 0.3], NAN), ([0.1, 0.3], 0.5), ([0.2, 0.8], 0.5)]
)
def test_a_form_that_the_log_does_not_bear_out_is_not_chosen(scores: list[float], agg: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "X_EVAL.json", ratio(scores, agg))
    with pytest.raises(InputError, match=r"X_EVAL.json: .*name retain_Truth_Ratio.ratio or retain_Truth_Ratio.score"):
        read("open-unlearning", path, {"utility": "1-retain_Truth_Ratio"})
    for form, wanted in (("ratio", scores), ("score", [1 - s for s in scores])):
        rules = {"utility": f"1-retain_Truth_Ratio.{form}"}
        losses_read = make(Format, "open-unlearning", {"allow_other_mean": True}).read([path], rules)
        assert losses(losses_read) == [round(1000 * s) for s in wanted]
        if agg == 0.5 and scores == [0.1, 0.3]:
            with pytest.raises(InputError, match="--allow-other-mean"):
                read("open-unlearning", path, rules)


def samples(right: list[float], **more: Any) -> list[dict[str, Any]]:
    return [{"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": a} | more for i, a in enumerate(right)]


def test_all_files_of_a_folder_are_one_models(tmp_path: Path) -> None:
    """The harness's own tasks lie beside TOFU's, and both can be asked for."""
    write(
        tmp_path / "m" / "LMEval_EVAL.json",
        {"wmdp": {"wmdp_bio": samples([1.0, 0.0])}, "mmlu": {"mmlu": samples([1.0])}},
    )
    write(tmp_path / "m" / "TOFU_EVAL.json", {"extraction_strength": indexed([0.1, 0.2, 0.3], 0.2)})
    losses_read = read(
        "open-unlearning", tmp_path, {"a": "extraction_strength", "b": "wmdp_bio.acc", "c": "1-mmlu.acc"}
    )
    assert losses_read.losses["config"].unique().to_list() == ["m"]
    assert losses(losses_read) == [100, 200, 300, 1000, 0, 0]
    assert len(losses_read.sources["m"]) == 2


# --- the harness


def test_a_measure_that_no_rule_asks_for_blocks_nothing(tmp_path: Path) -> None:
    rows = [row | {"perplexity": -3.2, "metrics": ["perplexity", "acc"]} for row in samples([1.0, 0.0])]
    path = tmp_path / "m" / "samples_lambada.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(map(json.dumps, rows)))
    losses_read = read("lm-eval", tmp_path, {"a": "lambada.acc"})
    assert losses(losses_read) == [1000, 0]
    assert [note for note in losses_read.notes if "left out lambada.perplexity" in note]
    with pytest.raises(
        InputError, match=r"samples_lambada.jsonl: lambada.perplexity, row 0: the score -3.2 is outside"
    ):
        read("lm-eval", tmp_path, {"a": "lambada.perplexity"})
    reader = make(Format, "lm-eval")
    assert isinstance(reader, Logs)
    assert dict(reader.measures([tmp_path]).select("measure", "mean").iter_rows()) == {
        "lambada.acc": 0.5,
        "lambada.perplexity": None,
    }


def test_two_models_in_a_folder_of_samples_are_refused(tmp_path: Path) -> None:
    """Samples do not say whose they are; the results beside them do."""
    times = ("2026-01-01T10-00-00.1", "2026-01-01T11-00-00.1")
    for task, time, model in zip(("wmdp", "mmlu"), times, ("./unlearned", "./base"), strict=True):
        (tmp_path / f"samples_{task}_{time}.jsonl").write_text(
            "\n".join(map(json.dumps, samples([1.0 if task == "wmdp" else 0.0])))
        )
        write(
            tmp_path / f"results_{time}.json",
            {"config": {"model": "hf", "model_args": f"pretrained={model},batch_size={task}"}},
        )
    rules = {"a": "wmdp.acc", "b": "1-mmlu.acc"}
    with pytest.raises(InputError, match="name 2 models"):
        read("lm-eval", tmp_path, rules)
    write(
        tmp_path / f"results_{times[1]}.json",
        {"config": {"model": "hf", "model_args": "pretrained=./unlearned,batch_size=4"}},
    )
    assert losses(read("lm-eval", tmp_path, rules)) == [1000, 1000]


# --- Inspect


def log(values: dict[str, list[Any]], task: str = "wmdp", model: str = "hf/local", **spec: Any) -> dict[str, Any]:
    """values: sample -> its scores in the epochs 1, 2, ..."""
    rows = [
        {"id": name, "epoch": epoch, "target": "x", "scores": {"choice": {"value": value}}}
        for name, group in values.items()
        for epoch, value in enumerate(group, start=1)
    ]
    return {"status": "success", "eval": {"task": task, "model": model, "model_args": {}} | spec, "samples": rows}


def test_local_models_are_told_apart_by_their_arguments(tmp_path: Path) -> None:
    """One's forgetting and the other's utility were certified together."""
    rules = {"forgetting": "wmdp.choice", "utility": "1-mmlu.choice"}
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"model_args": {"model_path": "./a"}}, {"model_args": {"model_path": "./b"}}),
        ({"model_args": {"model_path": "./x/m"}}, {"model_args": {"model_path": "./y/m"}}),
        ({"model_args": {"revision": "1"}}, {"model_args": {"revision": "2"}}),
        ({"model_args": {"peft": "p"}}, {}),
        ({"model_base_url": "http://a"}, {"model_base_url": "http://b"}),
        ({"model": "hf/one"}, {"model": "hf/two"}),
    ]
    for place, (way, two) in enumerate(ways):
        folder = tmp_path / str(place)
        write(folder / "1.json", log({"a": ["I"]}, **way))
        write(folder / "2.json", log({"a": ["C"]}, "mmlu", **two))
        with pytest.raises(InputError, match=r"has the measure wmdp.choice and .* different models"):
            read("inspect", folder, rules)
        # batches, devices and ./ make no other model
        write(folder / "2.json", log({"a": ["C"]}, "mmlu", **way))
        assert losses(read("inspect", folder, rules)) == [0, 0]
    same = tmp_path / "same"
    write(same / "1.json", log({"a": ["I"]}, model_args={"model_path": "./a/m", "device": "cuda:0", "batch_size": 1}))
    write(same / "2.json", log({"a": ["C"]}, "mmlu", model_args={"model_path": "a/m/", "device": "cpu"}))
    assert read("inspect", same, rules).losses["config"].unique().to_list() == ["hf-local-m"]


def test_models_of_one_name_have_names_of_their_own(tmp_path: Path) -> None:
    for place in ("x", "y"):
        write(tmp_path / f"{place}.json", log({"a": ["I"]}, model_args={"model_path": f"/{place}/m"}))
    configs = read("inspect", tmp_path, {"r": "wmdp.choice"}).losses["config"].unique().to_list()
    assert len(configs) == 2
    assert not any("/" in config for config in configs)


def test_epochs_of_a_sample_are_one_draw(tmp_path: Path) -> None:
    """Asked ten times, forty questions are forty: ten times as many units made p .0057 of .48."""
    draw = np.random.default_rng(0).random(40) < 0.05
    once = {f"s{i}": ["C" if bad else "I"] for i, bad in enumerate(draw)}
    rule = {"forgetting": "wmdp.choice"}
    first = certify(write(tmp_path / "a.json", log(once)), 0.15, format="inspect", loss=rule).document
    tenfold = write(tmp_path / "b.json", log({name: values * 10 for name, values in once.items()}))
    second = certify(tenfold, 0.15, format="inspect", loss=rule).document
    assert first["n"] == second["n"] == {"forgetting": 40}
    assert first["candidates"][0]["p_value"] == second["candidates"][0]["p_value"]


@pytest.mark.parametrize("rule", ["", "1-", "base-"])
def test_epochs_and_samples_that_are_not_there_are_losses_of_one(rule: str, tmp_path: Path) -> None:
    """Fewer epochs than others have or than were planned; samples that the log lists and does not hold."""
    base = write(tmp_path / "base" / "b.json", log({"a": [0.5] * 2, "b": [0.5] * 2, "c": [0.5] * 2}))
    options: dict[str, Any] = {"dataset": {"sample_ids": ["a", "b", "c"]}}
    path = write(tmp_path / "a.json", log({"a": [0.5, 0.5], "b": [0.5]}, **options))
    rules = {"r": f"{rule}wmdp.choice"}
    result = losses(read("inspect", path, rules, base if rule == "base-" else None))
    assert result == ([0, 500, 1000] if rule == "base-" else [500, 750, 1000])
    write(path, log({"a": [0.5], "b": [0.5]}, config={"epochs": 2}, **options))
    result = losses(read("inspect", path, rules, base if rule == "base-" else None))
    assert result == ([500, 500, 1000] if rule == "base-" else [750, 750, 1000])


@pytest.mark.parametrize("status", ["cancelled", "error", "started", "invalidated"])
def test_a_log_that_did_not_end_is_skipped_in_a_folder_and_refused_by_name(status: str, tmp_path: Path) -> None:
    write(tmp_path / "good.json", log({"a": ["I"]}))
    stopped = log({"a": ["I"], "b": ["I"]}) | ({"invalidated": True} if status == "invalidated" else {"status": status})
    bad = write(tmp_path / "bad.json", stopped)
    (tmp_path / "open.eval").write_bytes(archive(stopped))
    write(tmp_path / "logs.json", {"no": "log"})
    losses_read = read("inspect", tmp_path, {"r": "wmdp.choice"})
    assert losses(losses_read) == [0]
    assert [note for note in losses_read.notes if note.startswith("skipped bad.json: the key ")]
    assert [note for note in losses_read.notes if note.startswith("skipped open.eval: the key ")]
    for path in (bad, tmp_path / "open.eval"):
        with pytest.raises(InputError, match=path.name):
            read("inspect", path, {"r": "wmdp.choice"})
    (tmp_path / "good.json").unlink()
    with pytest.raises(InputError, match=r"no log is whole: skipped bad\.json"):
        read("inspect", tmp_path, {"r": "wmdp.choice"})


def test_the_mean_that_inspect_reports_is_held_against_its_samples(tmp_path: Path) -> None:
    metrics = {"accuracy": {"name": "accuracy", "value": 0.5}}
    results = {"scores": [{"name": "choice", "scorer": "choice", "metrics": metrics}]}
    path = write(tmp_path / "a.json", log({"a": ["C"], "b": ["I"]}) | {"results": results})
    assert losses(read("inspect", path, {"r": "wmdp.choice"})) == [1000, 0]
    metrics["accuracy"]["value"] = 0.9
    write(path, log({"a": ["C"], "b": ["I"]}) | {"results": results})
    with pytest.raises(InputError, match=r"reports 0\.9 for wmdp.choice"):
        read("inspect", path, {"r": "wmdp.choice"})


# --- TOFU's own code


def test_lists_are_rows_by_their_place(tmp_path: Path) -> None:
    """As the NPO and SimNPO repositories log them: no truth_ratio, but what it is made of."""
    section: dict[str, list[Any]] = {
        "avg_gt_loss": [0.0, math.log(2), NAN], "avg_paraphrased_loss": [1.0, 2.0, 1.0],
        "average_perturb_loss": [[1.0, 1.0], [1.0, 1.0], [1.0, NAN]], "generated_text": [["p", "g", "a"]] * 3,
    }  # fmt: skip
    path = write(tmp_path / "eval_log_aggregated.json", {"eval_log_forget.json": section, "eval_log.json": section})
    by_index = {name: {str(i): v for i, v in enumerate(values)} for name, values in section.items()}
    second = write(
        tmp_path / "d" / "eval_log_aggregated.json", {"eval_log_forget.json": by_index, "eval_log.json": by_index}
    )
    for file in (path, second):
        assert losses(read("tofu", file, {"r": "forget_probability"})) == [1000, 500, 1000]
        # s is 1 and e
        assert losses(read("tofu", file, {"r": "forget_truth_ratio"})) == [1000, math.ceil(1000 / math.e), 1000]
        assert losses(read("tofu", file, {"r": "1-retain_truth_ratio"})) == [1000, 1000, 1000]
    section["avg_paraphrased_loss"] = [1.0]
    write(path, {"eval_log_forget.json": section})
    with pytest.raises(InputError, match="do not have the same rows"):
        read("tofu", path, {"r": "forget_truth_ratio"})
