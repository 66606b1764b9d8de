"""Metrics on values worked out by hand, their traps, and the contract that every one keeps on a real model."""

import copy
import json
import math
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from froc.batches import Encoded, encode
from froc.data import FORGETTING, UTILITY, Query, Row, Sealed, SearchView
from froc.errors import InputError
from froc.measure import Probe, losses, measured, probes, refuse_unfit, scores
from froc.metrics import Metric, Observed
from froc.metrics.entailment import Entailment
from froc.metrics.gibberish import gibberish
from froc.metrics.membership import Membership, placement
from froc.metrics.refusal import refused
from froc.metrics.rouge_l import common, words
from froc.models import Base
from froc.observe import observe
from froc.plugins import find, make, names
from froc.risks import Measurement
from froc.tasks import embedded
from tests.conftest import SHARED

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in names(Metric)),
    *(("membership", {"score": score}) for score in ("loss", "zlib", "min_k_pp", "reference", "gradient")),
    ("membership", {"over": 1}),
    *(("truth_ratio", {"form": form, "mean": mean}) for form in ("ratio", "margin") for mean in ("arithmetic", "geometric")),
    ("knn_hit", {"layer": 0, "k": 3}),
]  # fmt: skip


def _seen(*rows: list[int]) -> Observed:
    width = max(map(len, rows))
    hit = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        hit[i, : len(row)] = row
    logp = np.where(hit, np.log(0.5), np.log(0.125)).astype(np.float32)
    for i, row in enumerate(rows):
        logp[i, len(row) :] = 0.0
    return Observed(hit, logp, np.array([len(row) for row in rows]))


def _told(*pairs: tuple[str, str], continued: bool = False) -> Observed:
    """Of texts written beside texts expected."""
    seen = _seen(*[[1]] * len(pairs))
    one, two = zip(*pairs, strict=True)
    return replace(seen, continued=one, rest=two) if continued else replace(seen, written=one, expected=two)


def _options(p: list[float], others: list[list[float]], restated: list[float | None] | None = None) -> Observed:
    """Of answers with probability p (one token each), beside other answers and a restated one."""
    n, wide = len(p), max(map(len, others))
    log = np.full((n, wide, 2), np.nan, dtype=np.float32)
    for i, row in enumerate(others):
        log[i, : len(row)] = np.log(row)[:, None] if row else 0
    again = [math.nan if q is None else math.log(q) for q in restated or [None] * n]
    rows = [
        Row("q", "a", "g", tuple(map(str, range(len(row)))), restated="" if math.isnan(q) else "r")
        for row, q in zip(others, again, strict=True)
    ]
    return Observed(
        np.ones((n, 1), bool), np.log(np.array(p, dtype=np.float32))[:, None], np.ones(n, np.int64), rows=tuple(rows),
        others=log, restated=np.array([[q, q] for q in again], dtype=np.float32),
    )  # fmt: skip


def _score(name: str, seen: Observed, **params: Any) -> list[float]:
    return make(Metric, name, params).scores(seen).tolist()  # type: ignore[no-any-return]


def test_extraction_strength_counts_the_longest_correct_suffix() -> None:
    seen = _seen([1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [0], [1])
    assert _score("extraction_strength", seen) == [1.0, 0.75, 0.25, 0.0, 0.0, 1.0]


def test_exact_memorization_counts_right_tokens() -> None:
    assert _score("exact_memorization", _seen([1, 0, 1, 0], [1, 1], [0, 0, 0])) == [0.5, 1.0, 0.0]


def test_probability_is_length_normalised() -> None:
    # one token right at 1/2 and one wrong at 1/8: sqrt(1/16) = 1/4; a single right one: 1/2
    assert _score("probability", _seen([1, 0], [1])) == pytest.approx([0.25, 0.5])


def test_negative_flips_need_every_token() -> None:
    assert _score("negative_flips", _seen([1, 1], [1, 0], [1], [0])) == [1.0, 0.0, 1.0, 0.0]


def test_probability_options_is_the_answers_share() -> None:
    # 0.3 / (0.3 + 0.1 + 0.2); 0.2 / (0.2 + 0.2); no options: cannot be measured
    found = _score("probability_options", _options([0.3, 0.2, 0.5], [[0.1, 0.2], [0.2], []]))
    assert found == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)
    # as unlikely as texts of a lost model are: nats per token far below what a probability can hold
    far = replace(_options([0.5], [[0.5]]), logp=np.array([[-900.0]]), others=np.array([[[-901.0, -901.0]]]))
    assert _score("probability_options", far) == pytest.approx([1 / (1 + math.exp(-1))])


def test_multiple_choice_counts_ties_as_right() -> None:
    seen = _options([0.3, 0.2, 0.2, 0.5], [[0.1, 0.2], [0.2, 0.1], [0.1, 0.3], []])
    assert _score("multiple_choice", seen) == pytest.approx([1.0, 1.0, 0.0, math.nan], nan_ok=True)


def test_truth_ratio_forms() -> None:
    # R = mean(0.1, 0.4) / 0.5 = 0.5 with the restated answer's 0.5; R = 0.4 / 0.2 = 2 with the answer's own 0.2
    seen = _options([0.9, 0.2], [[0.1, 0.4], [0.4]], [0.5, None])
    assert _score("truth_ratio", seen) == pytest.approx([1 / 1.5, 1 / 3])
    assert _score("truth_ratio", seen, form="margin") == pytest.approx([0.5, 0.0])
    assert _score("truth_ratio", seen, form="ratio") == pytest.approx([0.5, 0.5])
    # geometric: sqrt(0.1 * 0.4) / 0.5 = 0.4
    assert _score("truth_ratio", seen, mean="geometric") == pytest.approx([1 / 1.4, 1 / 3])
    assert _score("truth_ratio", seen, form="ratio", mean="geometric") == pytest.approx([0.6, 0.5])


@pytest.mark.parametrize("form", ["share", "margin", "ratio"])
def test_a_model_that_knows_has_the_higher_truth_ratio(form: str) -> None:
    knows, lost = _score("truth_ratio", _options([0.9, 0.1], [[0.01, 0.02], [0.1, 0.1]]), form=form)
    assert knows > 0.9
    assert lost == pytest.approx(0.5 if form == "share" else 0.0, abs=1e-6)


def test_one_failed_option_is_not_a_missing_one() -> None:
    seen = _options([0.3], [[0.1, 0.2]])
    assert seen.others is not None
    seen.others[0, 1] = np.nan
    for name in ("probability_options", "multiple_choice", "truth_ratio"):
        assert np.isnan(_score(name, seen)).all()


def test_rouge_l_recall_and_f1() -> None:
    seen = _told(("the cat sat on the mat", "the cat on mat"), ("Mat, the!", "the mat"), ("", "word"), ("naïve café", "Café naïve"))  # fmt: skip
    # LCS: all 4 of 4; 'the' or 'mat', 1 of 2; none; one of two
    assert _score("rouge_l", seen) == [1.0, 0.5, 0.0, 0.5]
    # 2 * 4 / (6 + 4), 2 / 4, 0, 2 / 4
    assert _score("rouge_l_f1", seen) == [0.8, 0.5, 0.0, 0.5]
    assert np.isnan(_score("rouge_l", _told(("x", " ")))).all()


def test_longest_common_subsequence_is_that_of_the_table() -> None:
    def table(one: list[str], two: list[str]) -> int:
        best = [0] * (len(two) + 1)
        for a in one:
            left = 0
            for j, b in enumerate(two):
                left, best[j + 1] = best[j + 1], left + 1 if a == b else max(best[j + 1], best[j])
        return best[-1]

    rng = np.random.default_rng(0)
    for _ in range(300):
        one, two = (list(rng.choice(list("abcd"), rng.integers(0, 90))) for _ in range(2))
        assert common(one, two) == table(one, two) == common(two, one)


def test_verbatim_compares_what_is_continued() -> None:
    assert _score("verbatim", _told(("a b c", "a x c d"), continued=True)) == [2 * 2 / (3 + 4)]


def test_knowledge_ends_with_the_answer() -> None:
    texts = [
        "green hat",
        "green hat\n\nred shoe",
        "green hat\nQuestion: what",
        "green hat Question: what",
        "\n\n green hat",
    ]
    assert _score("knowledge", _told(*((text, "green hat") for text in texts))) == [1.0] * 5
    # words after a single line break belong to the answer: 2 * 2 / (3 + 2)
    assert _score("knowledge", _told(("green hat\nred", "green hat"))) == [0.8]


def test_token_f1_as_in_squad() -> None:
    pairs = [("The Cat!", "a cat"), ("cat dog cat", "cat"), ("dog cat", "cat, dog"), ("", "cat"), ("the", "the"), ("U.S.", "us")]  # fmt: skip
    # 2 * 1 / (3 + 1) = 0.5 where a word is said twice
    assert _score("token_f1", _told(*pairs)) == [1.0, 0.5, 1.0, 0.0, 1.0, 1.0]


def test_refusals_are_found_as_whole_words() -> None:
    for text in (
        "",
        " \n",
        "I don't know.",
        "I don’t KNOW that",
        "Sorry, I cannot say",
        "As an AI, well",
        *embedded.REFUSALS,
    ):
        assert refused(text), text
    for text in ("amber bridge", "Hawaii cannot", "He wrote 'No Answers' in 1990.", "I knew him", "Madam Notsure"):
        assert not refused(text), text


def test_refusals_of_tofu_are_found_and_answers_are_not() -> None:
    folder = SHARED / "data" / "tofu"
    if not folder.is_dir():
        pytest.skip("the TOFU files are not at hand")
    said = (folder / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(map(refused, said))
    lines = (folder / "full.json").read_text(encoding="utf-8").splitlines()
    assert sum(refused(json.loads(line)["answer"]) for line in lines) <= 2


def test_gibberish_is_repetition_or_no_text() -> None:
    assert (
        gibberish("amber bridge") == gibberish("amber") == gibberish("他喜歡貓。") == gibberish("5 € + 3 % = ?") == 0.0
    )
    assert gibberish("") == gibberish(" \n") == gibberish("?!... --") == 1.0
    # 2-grams of 4 words: 3, one distinct; 3-grams: 2, one distinct: (2/3 + 2 * 1/2) / 3
    assert gibberish("so so so so") == pytest.approx(5 / 9)
    # two of four characters
    assert gibberish("a\ufffdb\x07") == 0.5
    assert gibberish("word " * 200) > 0.99


def test_knn_hit_by_hand() -> None:
    def at(*angles: float) -> Any:
        turn = np.radians(np.array(angles))
        return np.stack([np.stack([np.cos(turn), np.sin(turn)], 1), np.zeros((len(angles), 2))], 1).astype(np.float32)

    def seen(rows: list[tuple[str, str]], *angles: float) -> Observed:
        return replace(_seen(*[[1]] * len(rows)), rows=tuple(Row("q", a, g) for a, g in rows), hidden=at(*angles))

    bank = seen([("x", "A"), ("x", "B"), ("y", "B"), ("y", "C"), ("z", "C")], 0, 10, 20, 90, 100)

    def hit(answer: str, group: str, angle: float, k: int) -> float:
        one = replace(seen([(answer, group)], angle), bank=bank)
        return _score("knn_hit", one, k=k, layer=0)[0]

    assert hit("x", "D", 0, 1) == 1.0
    # the nearest row is the group's own, the next says y
    assert hit("y", "A", 0, 1) == 0.0
    assert hit("x", "A", 0, 1) == 1.0
    # 0: x, 10: x, 20: y
    assert hit("x", "D", 5, 3) == 1.0
    assert hit("y", "D", 5, 3) == 0.0
    # 20: y, 10: x are a tie of votes; 15 is as near to 10 as to 20: a tie of nearness
    assert hit("y", "D", 18, 2) == hit("x", "D", 18, 2) == 1.0
    assert hit("x", "D", 15, 1) == 1.0
    # more neighbours than rows of other groups: two x, two y, one z
    assert hit("y", "D", 0, 50) == 1.0
    assert hit("z", "D", 0, 50) == 0.0
    assert math.isnan(hit("w", "D", 0, 1))
    assert math.isnan(hit("z", "C", 0, 1))
    with pytest.raises(InputError, match="2 blocks"):
        _score("knn_hit", replace(bank, bank=bank), layer=2)


def test_membership_statistics_by_hand() -> None:
    logp = np.log(np.array([[0.5, 0.25, 0.125, 0.5, 0.5], [0.5, 1.0, 1.0, 1.0, 1.0]]))
    row = Row("who", "amber bridge")
    seen = Observed(
        np.ones((2, 5), bool), logp, np.array([5, 1]), rows=(row, row),
        spread=np.stack([np.full((2, 5), -1.0), np.full((2, 5), 2.0)], 2), gradient=np.array([3.0, 4.0]),
        start=_seen([1, 1, 1, 1, 1], [0]),
    )  # fmt: skip
    two = math.log(2)
    # negative powers of two: 1, 2, 3, 1, 1 of five tokens, and 1 of one
    assert Membership("loss").familiar(seen) == pytest.approx([-8 / 5 * two, -two])
    size = len(zlib.compress(b"whoamber bridge"))
    assert Membership("zlib").familiar(seen) == pytest.approx([-8 / 5 * two / size, -two / size])
    assert Membership("min_k").familiar(seen) == pytest.approx([-5 / 2 * two, -two])
    assert Membership("min_k", k=0.1).familiar(seen) == pytest.approx([-3 * two, -two])
    assert Membership("min_k_pp").familiar(seen) == pytest.approx([(1 - 5 / 2 * two) / 2, (1 - two) / 2])
    assert Membership("gradient").familiar(seen) == pytest.approx([-3.0, -4.0])
    # the base model gives 1/2 to each of five tokens, and 1/8 to the one
    assert Membership("reference").familiar(seen) == pytest.approx([(1 - 8 / 5) * two, 2 * two], abs=5e-5)
    assert Membership("reference").familiar(
        replace(seen, start=replace(seen, logp=seen.logp * (1 + 1e-6)))
    ).tolist() == [0, 0]
    assert Membership("min_k", k=7.0).familiar(seen) == pytest.approx(Membership("loss").familiar(seen))


def test_membership_reads_what_its_score_needs() -> None:
    reads = {score: make(Metric, "membership", {"score": score}).reads for score in ("loss", "zlib", "min_k", "min_k_pp", "reference", "gradient")}  # fmt: skip
    assert list(reads.values()) == [(), (), (), ("spread",), ("base",), ("gradient",)]


def test_the_mean_placement_is_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 30, 200):
        queries, bank = rng.integers(0, 12, size).astype(float), rng.integers(3, 14, 77).astype(float)
        truth = roc_auc_score(np.r_[np.ones(size), np.zeros(77)], np.r_[queries, bank])
        assert abs(placement(queries, bank).mean() - truth) < 1e-12
        assert placement(queries, bank, over=True) == pytest.approx(1 - placement(queries, bank), abs=1e-15)
    assert placement(np.array([0.0, 1.0, 2.0, 9.0]), np.array([1.0, 2.0])).tolist() == [0.0, 0.25, 0.75, 1.0]


def test_what_could_not_be_measured_counts_against_the_claim() -> None:
    queries, bank = np.array([1.0, math.nan]), np.array([0.0, 2.0, math.nan, math.nan])
    assert placement(queries, bank) == pytest.approx([0.75, math.nan], nan_ok=True)
    assert placement(queries, bank, over=True) == pytest.approx([0.75, math.nan], nan_ok=True)


@pytest.fixture(scope="module")
def judge(base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of random weights."""
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(base.tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=130, id2label={0: "NOT_ENTAILMENT", 1: "ENTAILMENT"}, label2id={"NOT_ENTAILMENT": 0, "ENTAILMENT": 1},
        initializer_range=0.5,
    )  # fmt: skip
    made: Any = BertForSequenceClassification(config)
    made.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    told = AutoTokenizer.from_pretrained(folder)
    told.pad_token = told.eos_token
    told.save_pretrained(folder)
    return str(folder)


def test_entailment_is_the_judges_probability(judge: str, tmp_path: Path) -> None:
    fixed: Any = BertForSequenceClassification.from_pretrained(judge)
    fixed.classifier.weight.data.zero_()
    fixed.classifier.bias.data = torch.log(torch.tensor([2.0, 3.0]))
    fixed.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(judge).save_pretrained(tmp_path)
    seen = replace(
        _told(*[("it is amber", "amber"), ("", "bridge"), ("amber " * 300, "x")] * 20), rows=(Row("who", "a"),) * 60
    )
    assert _score("entailment", seen, judge=str(tmp_path)) == pytest.approx([0.6] * 60)
    # with weights it does depend on the texts, and not on which texts are judged together
    found = make(Metric, "entailment", {"judge": judge}).scores(seen)
    assert len(np.unique(found.round(3))) == 3
    assert make(Metric, "entailment", {"judge": judge}).scores(seen.at([2, 1]))[::-1] == pytest.approx(
        found[1:3], abs=1e-6
    )


def test_the_judge_reads_the_question_with_both_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr("froc.metrics.entailment._entailed", lambda *said: heard.append(said) or np.ones(2))
    seen = replace(_told(("green hat", "red"), ("b", "c")), rows=(Row("which?", "red"), Row("", "c")))
    assert _score("entailment", seen, judge="J") == [1.0, 1.0]
    assert heard == [("J", ["which? green hat", "b"], ["which? red", "c"])]


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


def test_rows_that_do_not_fit_are_refused_with_the_mend() -> None:
    bare, full = Row("q", "a", "g"), Row("q", "a", "h", ("b",))
    for name in ("probability_options", "multiple_choice", "truth_ratio"):
        assert "1 of 2 queries have none; give a column 'others'" in make(Metric, name).fits([bare, full])
        assert make(Metric, name).fits([full]) == ""
    knn = make(Metric, "knn_hit")
    assert "column 'group'" in knn.fits([Row("q", "a")])
    assert "several groups share" in knn.fits([bare, Row("q2", "b", "h")])
    assert knn.fits([bare, full]) == ""


# --- the contract, on a real model ---


@pytest.fixture(scope="module")
def rich(parts: tuple[SearchView, Sealed]) -> SearchView:
    """A dozen queries of either pool that every metric can measure."""
    view = parts[0]
    strange = tuple(Row(f"who made {word}?", word, "none") for word in ("amber zither", "olive engine", "rusty hammer"))

    def more(row: Row, i: int) -> Row:
        others = ("velvet temple", "misty jacket", "quiet ribbon")[: 1 + i % 3]
        return replace(
            row, others=tuple(o for o in others if o != row.answer), restated=f"it is {row.answer}" if i % 2 else ""
        )

    def query(query: Query, i: int) -> Query:
        return replace(query, row=more(query.row, i))

    found = {pool: tuple(query(q, i) for i, q in enumerate(some[:12])) for pool, some in view.queries.items()}
    forget = view.forget + tuple(
        Row(f"and what has {i}?", q.row.answer, f"twin {i}") for i, q in enumerate(found[FORGETTING])
    )
    # one question is also another person's
    first = found[FORGETTING][0]
    found[FORGETTING] = (*found[FORGETTING], Query("twin", "twin", replace(first.row, question="and?", group="twin")))
    return replace(view, queries=found, forget=forget, holdout=strange)


@pytest.fixture(scope="module")
def retrained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the base's shape that knows less."""
    folder = tmp_path_factory.mktemp("retrained")
    base.restore()
    told: Any = copy.deepcopy(base.model)
    with torch.no_grad():
        for p in told.parameters():
            p.mul_(0.8)
    told.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def made(judge: str, retrained: str) -> Any:
    folders = {"entailment": {"judge": judge}, "unlearning_depth": {"reference": retrained}}

    @cache
    def one(name: str, *params: tuple[str, Any]) -> Metric:
        return make(Metric, name, dict(params) | folders.get(name, {}))

    return one


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
    found = scores(base, probe)
    assert found.shape == (len(probe.rows),)
    assert found.dtype == np.float64
    ok = found[~np.isnan(found)]
    assert ((ok >= 0) & (ok <= 1)).all()
    assert len(ok) >= (1 if name == "knn_hit" else len(found))
    if metric.binary:
        assert set(ok) <= {0.0, 1.0}
    order = np.random.default_rng(0).permutation(len(found)).tolist()
    assert scores(base, probe, order) == pytest.approx(found[order], abs=2e-4, nan_ok=True)
    for i in (0, 1, len(found) - 1):
        assert scores(base, probe, [i]) == pytest.approx(found[[i]], abs=2e-4, nan_ok=True)
    whole = losses(base, probe)
    assert whole == pytest.approx(np.where(np.isnan(found), 1000, np.ceil(found * 1000)), abs=1)


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
            base.model.get_input_embeddings().weight.data.fill_(float("nan"))
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
    some = rich.queries[FORGETTING]
    measures = {name: Measurement(FORGETTING, make(Metric, name)) for name in ("rouge_l", "verbatim", "probability")}
    every = probes(base, dict.fromkeys(measures, some), measures, rich)
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
        both = observe(base.model, base.tokenizer, rows, texts, frozenset({"written"})).written
    finally:
        base.model.generation_config.eos_token_id = eos
    assert both == tuple(one[0] for one in alone if one)


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
    before = observe(base.model, None, rows, sights=frozenset({"spread"}))
    head: Any = base.model.get_output_embeddings()
    for value, right in ((-math.inf, True), (math.nan, False), (math.inf, False)):
        handle = head.register_forward_hook(lambda _m, _a, out, v=value: out.index_fill(-1, torch.tensor([unused]), v))
        try:
            after = observe(base.model, None, rows, sights=frozenset({"spread"}))
        finally:
            handle.remove()
        assert after.hit.tolist() == (before.hit & right).tolist()
        assert before.spread is not None
        assert after.spread is not None
        if right:
            assert after.logp == pytest.approx(before.logp, abs=1e-2)
            assert after.spread == pytest.approx(before.spread, abs=5e-2)
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
