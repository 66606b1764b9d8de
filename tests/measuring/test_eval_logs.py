"""Numbers of real public logs, worked out again from their rows by our own code.

Per-query values go through the metrics themselves (as what was observed), sets through `froc.measuring.diagnostics`. Logs keep values in
single precision and OpenUnlearning adds 1e-10 to some denominators: where that reaches 1e-9, the test puts it in the data.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from froc.data.task import Row
from froc.measuring.diagnostics import mia_auc, model_utility, priv_leak
from froc.measuring.metric import Metric, Observation
from froc.measuring.placement import placement
from froc.metrics.rouge_l import words
from froc.plugins import make
from tests.conftest import SHARED

LOGS = SHARED / "data" / "eval_logs"
TOFU = sorted(LOGS.glob("open_unlearning_reference/**/TOFU_EVAL.json.gz"))
MUSE = sorted(LOGS.glob("muse_news_reference/**/MUSE_EVAL.json.gz"))
DUET = sorted(LOGS.glob("duet_llama31_8b/**/DUET_EVAL.json.gz"))
PHI = sorted(LOGS.glob("tofu_original_phi15/**/eval_log_aggregated.json.gz"))
EXACT = 1e-9
TINY = 1e-10
"""What OpenUnlearning adds to denominators."""
pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason="the logs are not at hand")
Numbers = NDArray[np.float64]


@cache
def _log(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return result


def _named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.parent.relative_to(LOGS)))


def _column(entry: dict[str, Any], field: str) -> Any:
    """Values of a field in the order of rows."""
    rows = entry["value_by_index"]
    return [rows[str(i)][field] for i in range(len(rows))]


def _observed(logp: Any, others: Any = None, restated: Any = None) -> Observation:
    """Answers of one token with these log-probabilities; a mean over tokens is all that the logs have."""
    # a log has more digits than the single precision that models give
    item: Any = np.asarray(logp, dtype=np.float64)
    n = len(item)
    seen: dict[str, Any] = {}
    if others is not None:
        wrong = np.asarray(others, dtype=np.float64)
        again = item if restated is None else np.asarray(restated, dtype=np.float64)
        expected = tuple(map(str, range(wrong.shape[1])))
        seen = {
            "rows": (Row("q", "a", others=expected, restated="r"),) * n,
            "others": np.repeat(wrong[:, :, None], 2, axis=2),
            "restated": np.repeat(again[:, None], 2, axis=1),
        }
    return Observation(np.ones((n, 1), bool), item[:, None], np.ones(n, np.int64), **seen)


def _texts(entry: dict[str, Any]) -> Observation:
    written, expected = _column(entry, "generation"), _column(entry, "ground_truth")
    n = len(written)
    return Observation(
        np.ones((n, 1), bool), np.zeros((n, 1), np.float32), np.ones(n, np.int64),
        written=tuple(written), expected=tuple(expected),
    )  # fmt: skip


def _score(name: str, seen: Observation, **params: Any) -> Numbers:
    return make(Metric, name, params).scores(seen)


def _close(result: Any, expected: Any) -> None:
    np.testing.assert_allclose(
        np.asarray(result, dtype=np.float64), np.asarray(expected, dtype=np.float64), rtol=0, atol=EXACT
    )


def _truth_ratio(log: dict[str, Any], split: str, restated: Numbers) -> Observation:
    """What a truth ratio is made of, with OpenUnlearning's tiny number in the true answer's probability."""
    false = -np.array(_column(log[f"{split}_Q_A_PERT_Prob"], "avg_loss"))
    return _observed(restated, false, np.log(np.exp(restated) + TINY))


def _restated(log: dict[str, Any], split: str) -> Numbers:
    return -np.array(_column(log[f"{split}_Q_A_{'PARA_' if split in ('forget', 'retain') else ''}Prob"], "avg_loss"))


def test_all_logs_are_there() -> None:
    assert (len(TOFU), len(MUSE), len(DUET), len(PHI)) == (18, 2, 10, 8)


@_named(TOFU)
def test_tofu_probabilities(path: Path) -> None:
    log = _log(path)
    for name in (name for name in log if name.endswith("_Prob")):
        expected = np.array(_column(log[name], "prob"))
        loss = np.array(_column(log[name], "avg_loss"))
        result = _score("probability", _observed(-loss.ravel())).reshape(expected.shape)
        # a probability was worked out in single precision, from the loss that is in the log
        np.testing.assert_allclose(result, expected, rtol=3e-6)
        kept = _score("probability", _observed(np.log(expected.ravel()))).reshape(expected.shape)
        _close(kept.mean(), log[name]["agg_value"])
    for split in ("ra", "wf"):
        right, wrong = log[f"{split}_Q_A_Prob"], log[f"{split}_Q_A_PERT_Prob"]
        p, others = np.array(_column(right, "prob")), np.array(_column(wrong, "prob"))
        result = _score("probability_options", _observed(np.log(p), np.log(others)))
        expected = np.array(_column(log[f"{split}_Q_A_Prob_normalised"], "prob"))
        # their tiny number: p / (p + others + 1e-10)
        whole = p + others.sum(axis=1)
        _close(result * whole / (whole + TINY), expected)
        _close(np.mean(result * whole / (whole + TINY)), log[f"{split}_Q_A_Prob_normalised"]["agg_value"])


@_named(TOFU)
def test_tofu_truth_ratios(path: Path) -> None:
    log = _log(path)
    for split, name in (("forget", "forget_truth_ratio"), *((s, f"{s}_Truth_Ratio") for s in ("retain", "ra", "wf"))):
        seen = _truth_ratio(log, split, _restated(log, split))
        expected = np.array(_column(log[name], "score"))
        share = _score("truth_ratio", seen, mean="geometric")
        # share = 1 / (1 + R)
        np.testing.assert_allclose(1.0 / share - 1.0, expected, rtol=1e-9)
        if split == "forget":
            result = 1.0 - _score("truth_ratio", seen, form="ratio", mean="geometric")
            _close(result, np.minimum(expected, 1 / expected))
        else:
            result = _score("truth_ratio", seen, form="margin", mean="geometric")
            _close(result, np.maximum(0.0, 1.0 - expected))
        _close(result.mean(), log[name]["agg_value"])


def _retrained(path: Path) -> Path | None:
    """The log of the model that was trained without the forget rows."""
    if path.parent.name.endswith("_target"):
        return path.parents[1] / path.parent.name.replace("_target", "_retrain") / path.name
    if "evals_forget" not in path.parent.name:
        return None
    split = int(path.parent.name.removeprefix("evals_forget"))
    return path.parents[2] / path.parents[1].name.replace("_full", f"_retain{100 - split}") / path.name


def _differ(result: Numbers, reference: Numbers, entry: dict[str, Any]) -> None:
    """Rows where our ROUGE is not theirs are those where their words are not ours: stems, and letters that are not a to z."""
    apart = np.flatnonzero(np.abs(result - reference) > EXACT)
    written, expected = _column(entry, "generation"), _column(entry, "ground_truth")
    for i in apart:
        first, second = set(words(written[i])), set(words(expected[i]))
        stems = any(a != b and a[:2] == b[:2] for a in first for b in second)
        assert stems or not "".join(first | second).isascii(), (first, second)
    # most rows have neither
    assert len(apart) <= 0.25 * len(result)
    assert np.abs(result - reference).mean() < 0.025


@_named(TOFU)
def test_tofu_rouge(path: Path) -> None:
    log = _log(path)
    for split in ("forget", "retain", "ra", "wf"):
        entry = log[f"{split}_Q_A_ROUGE"]
        _close(np.mean(_column(entry, "rougeL_recall")), entry["agg_value"])
        _differ(_score("rouge_l", _texts(entry)), np.array(_column(entry, "rougeL_recall")), entry)
        _differ(_score("rouge_l_f1", _texts(entry)), np.array(_column(entry, "rougeL_f1")), entry)


@_named(DUET)
def test_duet_rouge(path: Path) -> None:
    log = _log(path)
    for entry in log.values():
        _close(np.mean(_column(entry, "rougeL_recall")), entry["agg_value"])
        _differ(_score("rouge_l", _texts(entry)), np.array(_column(entry, "rougeL_recall")), entry)
        _differ(_score("rouge_l_f1", _texts(entry)), np.array(_column(entry, "rougeL_f1")), entry)


@_named([*TOFU, *MUSE])
def test_memorisation_and_membership(path: Path) -> None:
    log = _log(path)
    for name in ("exact_memorization", "extraction_strength"):
        _close(np.mean(_column(log[name], "score")), log[name]["agg_value"])
    attacks = [name for name in log if name.startswith("mia_")]
    assert len(attacks) >= 5
    for name in attacks:
        # their scores are lower for rows that look more familiar
        forget, holdout = (
            -np.array(_column(log[name][side], "score"), dtype=np.float64) for side in ("forget", "holdout")
        )
        _close(placement(forget, holdout).mean(), log[name]["auc"])
        _close(1.0 - placement(forget, holdout, over=True).mean(), log[name]["auc"])
        _close(mia_auc(forget, holdout), log[name]["agg_value"])


@_named(MUSE)
def test_muse_rouge(path: Path) -> None:
    log = _log(path)
    for name in ("forget_knowmem_ROUGE", "retain_knowmem_ROUGE", "forget_verbmem_ROUGE"):
        _close(np.mean(_column(log[name], "rougeL_f1")), log[name]["agg_value"])


@_named([*TOFU, *MUSE])
def test_privacy_leak(path: Path) -> None:
    # a model that was retrained itself is compared with an attack that knows nothing
    retrained = _retrained(path)
    reference = _log(retrained)["mia_min_k"]["auc"] if retrained else 0.5
    # OpenUnlearning divides by the reference's 1 - auc and its tiny number
    there = 1.0 - reference
    result = priv_leak(_log(path)["mia_min_k"]["auc"], reference) * there / (there + TINY)
    _close(result, _log(path)["privleak"]["agg_value"])


@_named(TOFU)
def test_model_utility(path: Path) -> None:
    log = _log(path)
    parts = [
        log[f"{split}_Q_A_Prob{'' if split == 'retain' else '_normalised'}"]["agg_value"]
        for split in ("retain", "ra", "wf")
    ]
    parts += [
        log[f"{split}_{name}"]["agg_value"] for split in ("retain", "ra", "wf") for name in ("Q_A_ROUGE", "Truth_Ratio")
    ]
    assert len(parts) == 9
    _close(model_utility(parts), log["model_utility"]["agg_value"])


@_named(PHI)
def test_original_tofu(path: Path) -> None:
    for name, section in _log(path).items():

        def column(field: str, section: dict[str, Any] = section) -> Any:
            return [section[field][str(i)] for i in range(len(section[field]))]

        loss, length = np.array(column("gt_loss")), np.array(column("num_token_gt"), dtype=np.int64)
        # sums of losses over tokens, as one row of tokens: the metric divides by their number
        logp: Any = np.zeros((len(loss), int(length.max())))
        logp[:, 0] = -loss
        seen = Observation(np.ones(logp.shape, bool), logp, length)
        np.testing.assert_allclose(_score("probability", seen), np.exp(-np.array(column("avg_gt_loss"))), rtol=1e-5)
        true, false = -np.array(column("avg_paraphrased_loss")), -np.array(column("average_perturb_loss"))
        share = _score("truth_ratio", _observed(true, false), mean="geometric")
        # their code works in single precision
        np.testing.assert_allclose(1.0 / share - 1.0, column("truth_ratio"), rtol=1e-5)
        if "wo_options" in name:
            result = _score("probability_options", _observed(-np.array(column("avg_gt_loss")), false))
            np.testing.assert_allclose(result, np.exp(-np.array(column("normalized_gt_loss"))), rtol=1e-5)
        _, written, expected = zip(*column("generated_text"), strict=True)
        texts = [[text.removeprefix("Answer:") for text in values] for values in (written, expected)]
        n = len(loss)
        observation = Observation(
            np.ones((n, 1), bool), np.zeros((n, 1), np.float32), np.ones(n, np.int64),
            written=tuple(texts[0]), expected=tuple(texts[1]),
        )  # fmt: skip
        entry = {"value_by_index": {str(i): {"generation": texts[0][i], "ground_truth": texts[1][i]} for i in range(n)}}
        _differ(_score("rouge_l", observation), np.array(column("rougeL_recall")), entry)
