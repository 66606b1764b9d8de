"""Metrics on values worked out by hand, and their traps."""

import json
import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from froc.data.task import Row
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.measuring.metric import Metric, Observation
from froc.measuring.placement import placement
from froc.metrics.gibberish import gibberish
from froc.metrics.membership import Membership
from froc.metrics.refusal import refused
from froc.metrics.rouge_l import common
from froc.plugins import make
from tests.conftest import SHARED


def _seen(*rows: list[int]) -> Observation:
    width = max(map(len, rows))
    hit = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        hit[i, : len(row)] = row
    logp = np.full(hit.shape, np.log(0.125), dtype=np.float32)
    logp[hit] = np.log(0.5)
    for i, row in enumerate(rows):
        logp[i, len(row) :] = 0.0
    return Observation(hit, logp, np.array([len(row) for row in rows]))


def of_texts(*pairs: tuple[str, str], continued: bool = False) -> Observation:
    """Of texts written beside texts expected."""
    seen = _seen(*[[1]] * len(pairs))
    first, second = zip(*pairs, strict=True)
    return replace(seen, continued=first, rest=second) if continued else replace(seen, written=first, expected=second)


def _options(p: list[float], others: list[list[float]], restated: list[float | None] | None = None) -> Observation:
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
    return Observation(
        np.ones((n, 1), bool), np.log(np.array(p, dtype=np.float32))[:, None], np.ones(n, np.int64), rows=tuple(rows),
        others=log, restated=np.array([[q, q] for q in again], dtype=np.float32),
    )  # fmt: skip


def scored(name: str, seen: Observation, **params: Any) -> list[float]:
    result: list[float] = make(Metric, name, params).scores(seen).tolist()
    return result


def test_extraction_strength_counts_the_longest_correct_suffix() -> None:
    seen = _seen([1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [0], [1])
    assert scored("extraction_strength", seen) == [1.0, 0.75, 0.25, 0.0, 0.0, 1.0]


def test_exact_memorization_counts_right_tokens() -> None:
    assert scored("exact_memorization", _seen([1, 0, 1, 0], [1, 1], [0, 0, 0])) == [0.5, 1.0, 0.0]


def test_probability_is_length_normalised() -> None:
    # one token right at 1/2 and one wrong at 1/8: sqrt(1/16) = 1/4; a single right one: 1/2
    assert scored("probability", _seen([1, 0], [1])) == pytest.approx([0.25, 0.5])


def test_negative_flips_need_every_token() -> None:
    assert scored("negative_flips", _seen([1, 1], [1, 0], [1], [0])) == [1.0, 0.0, 1.0, 0.0]


def test_probability_options_is_the_answers_share() -> None:
    # 0.3 / (0.3 + 0.1 + 0.2); 0.2 / (0.2 + 0.2); no options: cannot be measured
    result = scored("probability_options", _options([0.3, 0.2, 0.5], [[0.1, 0.2], [0.2], []]))
    assert result == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)
    # as unlikely as texts of a lost model are: nats per token far below what a probability can hold
    far = replace(_options([0.5], [[0.5]]), logp=np.array([[-900.0]]), others=np.array([[[-901.0, -901.0]]]))
    assert scored("probability_options", far) == pytest.approx([1 / (1 + math.exp(-1))])


def test_multiple_choice_counts_ties_as_right() -> None:
    seen = _options([0.3, 0.2, 0.2, 0.5], [[0.1, 0.2], [0.2, 0.1], [0.1, 0.3], []])
    assert scored("multiple_choice", seen) == pytest.approx([1.0, 1.0, 0.0, math.nan], nan_ok=True)


def test_truth_ratio_forms() -> None:
    # R = mean(0.1, 0.4) / 0.5 = 0.5 with the restated answer's 0.5; R = 0.4 / 0.2 = 2 with the answer's own 0.2
    seen = _options([0.9, 0.2], [[0.1, 0.4], [0.4]], [0.5, None])
    assert scored("truth_ratio", seen) == pytest.approx([1 / 1.5, 1 / 3])
    assert scored("truth_ratio", seen, form="margin") == pytest.approx([0.5, 0.0])
    assert scored("truth_ratio", seen, form="ratio") == pytest.approx([0.5, 0.5])
    # geometric: sqrt(0.1 * 0.4) / 0.5 = 0.4
    assert scored("truth_ratio", seen, mean="geometric") == pytest.approx([1 / 1.4, 1 / 3])
    assert scored("truth_ratio", seen, form="ratio", mean="geometric") == pytest.approx([0.6, 0.5])


@pytest.mark.parametrize("form", ["share", "margin", "ratio"])
def test_a_model_that_knows_has_the_higher_truth_ratio(form: str) -> None:
    knows, lost = scored("truth_ratio", _options([0.9, 0.1], [[0.01, 0.02], [0.1, 0.1]]), form=form)
    assert knows > 0.9
    assert lost == pytest.approx(0.5 if form == "share" else 0.0, abs=1e-6)


def test_one_failed_option_is_not_a_missing_one() -> None:
    seen = _options([0.3], [[0.1, 0.2]])
    assert seen.others is not None
    seen.others[0, 1] = np.nan
    for name in ("probability_options", "multiple_choice", "truth_ratio"):
        assert np.isnan(scored(name, seen)).all()


def test_rouge_l_recall_and_f1() -> None:
    seen = of_texts(("the cat sat on the mat", "the cat on mat"), ("Mat, the!", "the mat"), ("", "word"), ("naïve café", "Café naïve"))  # fmt: skip
    # LCS: all 4 of 4; 'the' or 'mat', 1 of 2; none; one of two
    assert scored("rouge_l", seen) == [1.0, 0.5, 0.0, 0.5]
    # 2 * 4 / (6 + 4), 2 / 4, 0, 2 / 4
    assert scored("rouge_l_f1", seen) == [0.8, 0.5, 0.0, 0.5]
    assert np.isnan(scored("rouge_l", of_texts(("x", " ")))).all()


def test_longest_common_subsequence_is_that_of_the_table() -> None:
    def table(first: list[str], second: list[str]) -> int:
        best = [0] * (len(second) + 1)
        for a in first:
            left = 0
            for j, b in enumerate(second):
                left, best[j + 1] = best[j + 1], left + 1 if a == b else max(best[j + 1], best[j])
        return best[-1]

    rng = np.random.default_rng(0)
    for _ in range(300):
        first, second = (list(rng.choice(list("abcd"), rng.integers(0, 90))) for _ in range(2))
        assert common(first, second) == table(first, second) == common(second, first)


def test_verbatim_compares_what_is_continued() -> None:
    assert scored("verbatim", of_texts(("a b c", "a x c d"), continued=True)) == [2 * 2 / (3 + 4)]


def test_knowledge_ends_with_the_answer() -> None:
    texts = [
        "green hat",
        "green hat\n\nred shoe",
        "green hat\nQuestion: what",
        "green hat Question: what",
        "\n\n green hat",
    ]
    assert scored("knowledge", of_texts(*((text, "green hat") for text in texts))) == [1.0] * 5
    # words after a single line break belong to the answer: 2 * 2 / (3 + 2)
    assert scored("knowledge", of_texts(("green hat\nred", "green hat"))) == [0.8]


def test_token_f1_as_in_squad() -> None:
    pairs = [("The Cat!", "a cat"), ("cat dog cat", "cat"), ("dog cat", "cat, dog"), ("", "cat"), ("the", "the"), ("U.S.", "us")]  # fmt: skip
    # 2 * 1 / (3 + 1) = 0.5 where a word is said twice
    assert scored("token_f1", of_texts(*pairs)) == [1.0, 0.5, 1.0, 0.0, 1.0, 1.0]


def test_an_underscore_separates_words() -> None:
    """As in the scorers of TOFU and MUSE, which keep letters and digits."""
    assert scored("rouge_l", of_texts(("the file read_me lies there", "read me"))) == [1.0]


def test_refusals_are_found_as_whole_words() -> None:
    for text in (
        "",
        " \n",
        "I don't know.",
        "I don’t KNOW that",
        "Sorry, I cannot say",
        "As an AI, well",
        *embedded_text.REFUSALS,
    ):
        assert refused(text), text
    for text in ("amber bridge", "Hawaii cannot", "He wrote 'No Answers' in 1990.", "I knew him", "Madam Notsure"):
        assert not refused(text), text


def test_refusals_of_tofu_are_found_and_answers_are_not() -> None:
    folder = SHARED / "data" / "tofu"
    if not folder.is_dir():
        pytest.skip("the TOFU files are not at hand")
    text = (folder / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(map(refused, text))
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

    def seen(rows: list[tuple[str, str]], *angles: float) -> Observation:
        return replace(_seen(*[[1]] * len(rows)), rows=tuple(Row("q", a, g) for a, g in rows), hidden=at(*angles))

    bank = seen([("x", "A"), ("x", "B"), ("y", "B"), ("y", "C"), ("z", "C")], 0, 10, 20, 90, 100)

    def hit(answer: str, group: str, angle: float, k: int) -> float:
        changed = replace(seen([(answer, group)], angle), bank=bank)
        return scored("knn_hit", changed, k=k, layer=0)[0]

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
    # several at once; a representation without a number makes its own row none, and a neighbour's those of other groups
    torn = seen([("y", "D"), ("x", "D")], math.nan, 0)
    assert scored("knn_hit", replace(torn, bank=bank), k=1, layer=0) == pytest.approx([math.nan, 1.0], nan_ok=True)
    lost = seen([("x", "A"), ("x", "B"), ("y", "B"), ("y", "C"), ("z", "C")], 0, 10, 20, 90, math.nan)
    both = seen([("x", "D"), ("y", "C")], 0, 20)
    assert scored("knn_hit", replace(both, bank=lost), k=1, layer=0) == pytest.approx([math.nan, 1.0], nan_ok=True)
    assert math.isnan(hit("w", "D", 0, 1))
    assert math.isnan(hit("z", "C", 0, 1))
    with pytest.raises(InputError, match="2 blocks"):
        scored("knn_hit", replace(bank, bank=bank), layer=2)


def test_the_mean_of_placement_values_is_a_recommenders_area_under_the_curve() -> None:
    """Against scikit-learn, and by hand: the bank says yes with .9 and .4 where it should, with .5 and .2 where not."""

    def seen(rows: list[tuple[str, float]]) -> Observation:
        observed = _options([p for _, p in rows], [[1 - p] for _, p in rows])
        return replace(observed, rows=tuple(Row("q", a, others=("No." if a == "Yes." else "Yes.",)) for a, _ in rows))

    bank = seen([("Yes.", 0.9), ("Yes.", 0.4), ("No.", 0.5), ("No.", 0.8)])
    # yes at .9 is above .5 and .2, at .4 above .2 alone; a tie counts half
    queries = replace(seen([("Yes.", 0.9), ("Yes.", 0.4), ("Yes.", 0.5), ("No.", 0.8), ("No.", 0.05)]), bank=bank)
    assert scored("recommendation_auc", queries) == pytest.approx([1.0, 0.5, 0.75, 1.0, 0.0])
    draw = np.random.default_rng(0)
    many = [(("No.", "Yes.")[draw.integers(2)], float(p)) for p in draw.uniform(0.01, 0.99, 200)]
    yes = [(answer, p) for answer, p in many if answer == "Yes."]
    area = roc_auc_score([a == "Yes." for a, _ in many], [p if a == "Yes." else 1 - p for a, p in many])
    whole = scored("recommendation_auc", replace(seen(yes), bank=seen(many)))
    assert np.mean(whole) == pytest.approx(area, abs=1e-6)
    # a bank that cannot be compared with, or be measured
    for lost in (seen([("Yes.", 0.5)]), seen([("No.", math.nan)])):
        assert scored("recommendation_auc", replace(seen(yes[:1]), bank=lost)) == pytest.approx([math.nan], nan_ok=True)
    assert "others" in make(Metric, "recommendation_auc").fits([Row("q", "Yes.")])


def test_membership_statistics_by_hand() -> None:
    logp = np.log(np.array([[0.5, 0.25, 0.125, 0.5, 0.5], [0.5, 1.0, 1.0, 1.0, 1.0]]))
    row = Row("who", "amber bridge")
    seen = Observation(
        np.ones((2, 5), bool), logp, np.array([5, 1]), rows=(row, row),
        token_moments=np.stack([np.full((2, 5), -1.0), np.full((2, 5), 2.0)], 2), gradient=np.array([3.0, 4.0]),
        start=_seen([1, 1, 1, 1, 1], [0]),
    )  # fmt: skip
    two = math.log(2)
    # negative powers of two: 1, 2, 3, 1, 1 of five tokens, and 1 of one
    assert Membership("loss").familiar(seen) == pytest.approx([-8 / 5 * two, -two])
    size = len(zlib.compress(b"amber bridge"))
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


def test_membership_does_not_depend_on_the_length_of_questions() -> None:
    """Forget and holdout rows with the same answers and likelihoods: the area is 1/2 whatever is asked.

    With the question in the divisor alone it was 0.758 for long forget questions, and 0.238 for short ones.
    """
    answers = [f"amber bridge {i * i}" for i in range(40)]
    rows = [Row("who", answer) for answer in answers]
    logp = -np.linspace(0.1, 2.0, 40, dtype=np.float32)[:, None]
    plain = Observation(np.ones((40, 1), bool), logp, np.ones(40, np.int64), rows=tuple(rows))
    wordy = tuple(replace(row, question=f"After all that was said of this place in many books, who built it, {i}?") for i, row in enumerate(rows))  # fmt: skip
    for score in ("zlib", "loss", "min_k"):
        for queries, bank in ((wordy, tuple(rows)), (tuple(rows), wordy)):
            seen = replace(plain, rows=queries, bank=replace(plain, rows=bank))
            assert float(Membership(score).scores(seen).mean()) == 0.5


def test_membership_reads_what_its_score_needs() -> None:
    reads = {score: make(Metric, "membership", {"score": score}).reads for score in ("loss", "zlib", "min_k", "min_k_pp", "reference", "gradient")}  # fmt: skip
    assert list(reads.values()) == [(), (), (), ("token_moments",), ("base",), ("gradient",)]


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


def test_rows_that_do_not_fit_are_refused_with_the_mend() -> None:
    bare, full = Row("q", "a", "g"), Row("q", "a", "h", ("b",))
    for name in ("probability_options", "multiple_choice", "truth_ratio"):
        assert "1 of 2 queries have none; give a column 'others'" in make(Metric, name).fits([bare, full])
        assert make(Metric, name).fits([full]) == ""
    knn = make(Metric, "knn_hit")
    assert "column 'group'" in knn.fits([Row("q", "a")])
    assert "column 'group'" in knn.fits([bare, Row("q", "a")])
    assert "several groups share" in knn.fits([bare, Row("q2", "b", "h")])
    assert knn.fits([bare, full]) == ""
