"""The contract that every metric keeps on a real model, and the judge of entailment, which is one."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from froc.data.splits import Sealed, SearchView
from froc.data.task import FORGETTING, UTILITY, Row
from froc.errors import InputError
from froc.measuring.measurement import Measurement
from froc.measuring.metric import Metric
from froc.measuring.model_observation import observe
from froc.measuring.query_losses import Probe, losses, measured, probes, refuse_unfit, scores
from froc.metrics.entailment import Entailment, _judge
from froc.metrics.rouge_l import words
from froc.models.base import Base
from froc.models.batches import Encoded, encode
from froc.plugins import find, make
from tests.metrics.measurable import VARIANTS, random_judge, rich_view, weaker
from tests.metrics.test_metrics import of_texts, scored


@pytest.fixture(scope="module")
def judge(base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of random weights."""
    return random_judge(base, tmp_path_factory.mktemp("judge"))


def test_entailment_is_the_judges_probability(judge: str, tmp_path: Path) -> None:
    fixed: Any = BertForSequenceClassification.from_pretrained(judge)
    fixed.classifier.weight.data.zero_()
    fixed.classifier.bias.data = torch.log(torch.tensor([2.0, 3.0]))
    fixed.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(judge).save_pretrained(tmp_path)
    seen = replace(
        of_texts(*[("it is amber", "amber"), ("", "bridge"), ("amber " * 300, "x")] * 20), rows=(Row("who", "a"),) * 60
    )
    assert scored("entailment", seen, judge=str(tmp_path)) == pytest.approx([0.6] * 60)
    # with weights it does depend on the texts, and not on which texts are judged together
    result = make(Metric, "entailment", {"judge": judge}).scores(seen)
    assert len(np.unique(result.round(3))) == 3
    assert make(Metric, "entailment", {"judge": judge}).scores(seen.at([2, 1]))[::-1] == pytest.approx(
        result[1:3], abs=1e-6
    )


def test_the_judge_reads_the_question_with_both_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    def entailed(*options: Any) -> Any:
        heard.append(options)
        return np.ones(2)

    monkeypatch.setattr("froc.metrics.entailment._entailed", entailed)
    seen = replace(of_texts(("green hat", "red"), ("b", "c")), rows=(Row("which?", "red"), Row("", "c")))
    assert scored("entailment", seen, judge="J") == [1.0, 1.0]
    assert heard == [("J", "cpu", ["which? green hat", "b"], ["which? red", "c"])]
    assert scored("entailment", replace(seen, device="cuda:1"), judge="J") == [1.0, 1.0]
    assert heard[1][:2] == ("J", "cuda:1")


def test_the_judge_lies_on_the_device_of_the_model_that_is_measured(judge: str, base: Base) -> None:
    model, _ = _judge(judge, "meta")
    assert model.device.type == "meta"
    assert _judge(judge, "cpu")[0].device.type == "cpu"
    rows = encode(base.tokenizer, [Row("who", "amber")], "{question} {answer}")
    seen = observe(base.model, base.tokenizer, rows)
    assert seen.device == str(base.device)
    assert replace(seen, device="cuda:1").and_then(seen).device == "cuda:1"
    assert replace(seen, device="cuda:1").at([0]).device == "cuda:1"


def test_a_judge_that_cannot_judge_is_refused(judge: str, tmp_path: Path) -> None:
    rows = [Row("q", "a")]
    assert Entailment(judge).fits(rows) == ""
    assert "entailment:judge=PATH" in Entailment().fits(rows)
    assert "no config.json" in Entailment(str(tmp_path)).fits(rows)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text('{"id2label": {"0": "not_entailment", "1": "neutral"}}', encoding="utf-8")
    assert "not_entailment, neutral" in Entailment(str(tmp_path)).fits(rows)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert "no JSON" in Entailment(str(tmp_path)).fits(rows)


@pytest.fixture(scope="module")
def rich(parts: tuple[SearchView, Sealed]) -> SearchView:
    """A dozen queries of either pool that every metric can measure."""
    return rich_view(parts[0])


@pytest.fixture(scope="module")
def retrained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the base's shape that knows less."""
    base.restore()
    return weaker(base, tmp_path_factory.mktemp("retrained"))


@pytest.fixture
def made(judge: str, retrained: str) -> Any:
    folders = {"entailment": {"judge": judge}, "unlearning_depth": {"reference": retrained}}

    @cache
    def make_metric(name: str, *params: tuple[str, Any]) -> Metric:
        return make(Metric, name, dict(params) | folders.get(name, {}))

    return make_metric


def _probe(base: Base, rich: SearchView, metric: Metric, pool: str = FORGETTING) -> Probe:
    (probe,) = probes(base, {"risk": rich.queries[pool]}, {"risk": Measurement(pool, metric)}, rich)
    return probe


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_every_metric_scores_each_query_by_itself(
    base: Base, rich: SearchView, made: Any, name: str, params: dict[str, Any]
) -> None:
    metric = made(name, *params.items())
    assert find(Metric, name).one_means
    assert metric.fits([query.row for query in rich.queries[FORGETTING]]) == ""
    probe = _probe(base, rich, metric)
    result = scores(base, probe)
    assert result.shape == (len(probe.rows),)
    assert result.dtype == np.float64
    ok = result[~np.isnan(result)]
    assert ((ok >= 0) & (ok <= 1)).all()
    # an answer that no other group has, or that no layer carries, cannot be measured
    assert len(ok) >= (1 if name in ("knn_hit", "unlearning_depth") else len(result))
    if metric.binary:
        assert set(ok) <= {0.0, 1.0}
    order = np.random.default_rng(0).permutation(len(result)).tolist()
    assert scores(base, probe, order) == pytest.approx(result[order], abs=2e-4, nan_ok=True)
    for i in (0, 1, len(result) - 1):
        assert scores(base, probe, [i]) == pytest.approx(result[[i]], abs=2e-4, nan_ok=True)
    whole = losses(base, probe)
    assert whole == pytest.approx(np.where(np.isnan(result), 1000, np.ceil(result * 1000)), abs=1)


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_a_query_that_cannot_be_measured_is_the_worst_loss(
    base: Base, rich: SearchView, made: Any, name: str, params: dict[str, Any]
) -> None:
    metric = made(name, *params.items())
    base.restore()
    for pool in (FORGETTING, UTILITY):
        if name == "knn_hit" and pool == UTILITY:
            continue
        probe = _probe(base, rich, metric, pool)
        try:
            base.model.get_input_embeddings().get_parameter("weight").data.fill_(float("nan"))
            assert losses(base, probe).tolist() == [1000] * len(probe.rows)
        finally:
            base.restore()


@pytest.mark.parametrize("name", ["rouge_l", "extraction_strength", "membership", "refusal"])
def test_the_utility_risk_is_the_drop_or_the_fault(base: Base, rich: SearchView, made: Any, name: str) -> None:
    probe = _probe(base, rich, made(name), UTILITY)
    assert (probe.base is None) == (name == "refusal")
    # the base model has lost nothing and refuses nothing
    assert losses(base, probe).max() == 0


def test_metrics_that_read_different_texts_of_the_same_queries_do_not_meet(base: Base, rich: SearchView) -> None:
    values = rich.queries[FORGETTING]
    measures = {name: Measurement(FORGETTING, make(Metric, name)) for name in ("rouge_l", "verbatim", "probability")}
    every = probes(base, dict.fromkeys(measures, values), measures, rich)
    together = measured(base, every)
    for probe in every:
        assert together[probe.risk].tolist() == losses(base, probe).tolist()
    assert together["rouge_l"].tolist() != together["verbatim"].tolist()


def test_what_is_written_is_as_long_as_its_own_answer_allows(base: Base) -> None:
    template = "{question} {answer}"
    texts = [Row("who", "amber"), Row("who", "amber bridge candle donkey engine feather garden hammer")]
    rows = encode(base.tokenizer, texts, template)
    eos, base.model.generation_config.eos_token_id = base.model.generation_config.eos_token_id, None
    try:
        alone = [observe(base.model, base.tokenizer, [r], [t], frozenset({"written"})).written for r, t in zip(rows, texts, strict=True)]  # fmt: skip
        observation = observe(base.model, base.tokenizer, rows, texts, frozenset({"written"})).written
    finally:
        base.model.generation_config.eos_token_id = eos
    assert observation == tuple(item[0] for item in alone if item)


def test_unfit_risks_are_refused_before_anything_is_trained(parts: tuple[SearchView, Sealed]) -> None:
    view = replace(parts[0], holdout=())
    queries = {FORGETTING: tuple(replace(q, row=replace(q.row, others=())) for q in view.queries[FORGETTING])}
    for name, mend in (("multiple_choice", "column 'others'"), ("membership", "holdout"), ("entailment", "judge=PATH")):
        with pytest.raises(InputError, match=mend):
            refuse_unfit(view, {FORGETTING: Measurement(FORGETTING, make(Metric, name))}, queries)


def test_padding_and_batching_do_not_change_what_is_seen(base: Base) -> None:
    texts = [
        ("a", "amber"),
        ("what is it, if you know, and why would you", "amber bridge"),
        ("b c", "olive engine really"),
    ]
    rows = encode(base.tokenizer, [Row(q, a) for q, a in texts], "{question} {answer}")
    together = observe(base.model, None, rows)
    for i, row in enumerate(rows):
        alone = observe(base.model, None, [row])
        assert together.hit[i, : row.answer].tolist() == alone.hit[0].tolist()
        assert together.logp[i, : row.answer] == pytest.approx(alone.logp[0], abs=1e-4)


def test_a_token_that_is_ruled_out_makes_no_other_one_wrong(base: Base, parts: tuple[SearchView, Sealed]) -> None:
    base.restore()
    rows = encode(base.tokenizer, [query.row for query in parts[0].queries[FORGETTING][:5]], parts[0].template)
    unused = next(i for i in range(len(base.tokenizer)) if not any(i in row.ids for row in rows))
    before = observe(base.model, None, rows, observables=frozenset({"token_moments"}))
    head: Any = base.model.get_output_embeddings()
    for value, right in ((-math.inf, True), (math.nan, False), (math.inf, False)):
        handle = head.register_forward_hook(lambda _m, _a, out, v=value: out.index_fill(-1, torch.tensor([unused]), v))
        try:
            after = observe(base.model, None, rows, observables=frozenset({"token_moments"}))
        finally:
            handle.remove()
        assert after.hit.tolist() == (before.hit & right).tolist()
        assert before.token_moments is not None
        assert after.token_moments is not None
        if right:
            assert after.logp == pytest.approx(before.logp, abs=1e-2)
            assert after.token_moments == pytest.approx(before.token_moments, abs=5e-2)
        else:
            assert np.isnan(make(Metric, "exact_memorization").scores(after)).all()


def test_the_end_of_text_is_trained_but_not_measured(base: Base) -> None:
    (row,) = encode(base.tokenizer, [Row("what", "amber bridge")], "{question} {answer}")
    assert row.ids[-1] == base.tokenizer.eos_token_id
    assert row.prompt + row.answer == len(row.ids) - 1


def test_prompt_tokens_do_not_depend_on_the_answer(base: Base) -> None:
    short, long = encode(base.tokenizer, [Row("who", "amber"), Row("who", "olive engine")], "{question}\n{answer}")
    assert short.ids[: short.prompt] == long.ids[: long.prompt]


def test_plain_text_rows_are_measured_from_their_second_token(base: Base) -> None:
    (row,) = encode(base.tokenizer, [Row("", "amber bridge candle")], "{question} {answer}")
    assert isinstance(row, Encoded)
    assert row.prompt == 1


def test_words_are_of_any_script() -> None:
    assert words("Straße, ÉCOLE; 3.5") == ["straße", "école", "3", "5"]
    assert words("?! --") == ["?!", "--"]
