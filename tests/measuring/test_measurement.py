"""Named risks: how a measurement is written, which queries it takes, what cannot be measured is said first."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.data.rows import read_rows
from froc.data.splits import Source, held, split
from froc.data.task import EARLIER, FORGETTING, UTILITY, WORDINGS, Row, Task
from froc.errors import InputError
from froc.measuring.attack import Attack
from froc.measuring.measurement import measurement, named
from froc.measuring.metric import Metric
from froc.measuring.named_risks import KNOWN, PROFILES
from froc.measuring.query_losses import material, refuse_unfit
from froc.plugins import names


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("extraction_strength", "extraction_strength"),
        ("extraction-strength/forget", "extraction_strength"),
        ("probability/retain", "probability/utility"),
        ("rouge_l@role_play+prefix_injection/utility", "rouge_l@role_play+prefix_injection/utility"),
        ("extraction_strength@quantization:bits=4+quantization:bits=8", "extraction_strength@quantization+quantization:bits=8"),
        ("membership:over=1,score=min_k_pp", "membership:score=min_k_pp,over=1"),
    ],
)  # fmt: skip
def test_a_measurement_is_written_one_way(text: str, canonical: str) -> None:
    assert str(measurement(text)) == canonical
    assert measurement(canonical) == measurement(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rouge", "did you mean 'rouge_l'"),
        ("rouge_l@", "no attack after @"),
        ("rouge_l@quantisation", "did you mean 'quantization'"),
        ("rouge_l/elsewhere", "write /forgetting, /utility, /wordings or /earlier"),
        ("rouge_l/", "write /forgetting, /utility, /wordings or /earlier"),
        ("membership:score=luck", "makes no sense"),
        ("extraction_strength@quantization:bits=3", "makes no sense"),
        ("extraction_strength:depth=3", "has no hyperparameter"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        measurement(text)


def test_every_known_risk_and_profile_can_be_made() -> None:
    for risk, item in KNOWN.items():
        made = measurement(item.of)
        pool = item.of.rpartition("/")[2]
        assert made.pool == (pool if pool in (UTILITY, EARLIER, WORDINGS) else FORGETTING)
        assert risk == risk.lower()
    for risks in PROFILES.values():
        assert set(risks) <= set(KNOWN)
        assert risks[:2] == (FORGETTING, UTILITY)
    assert set(PROFILES["basic"]) < set(PROFILES["standard"]) < set(PROFILES["strict"])
    # who looks stranger than strangers was removed: both sides betray
    assert {"privacy", "overforgetting"} <= set(PROFILES["standard"])


def test_every_attack_and_metric_has_a_name_that_can_be_written() -> None:
    for attack in names(Attack):
        assert measurement(f"rouge_l@{attack}").attacks
    for metric in names(Metric):
        assert str(measurement(metric)) == metric


def test_a_risk_nobody_defined_is_refused() -> None:
    with pytest.raises(InputError, match="--risk stealth=METRIC@ATTACK"):
        named([FORGETTING, "stealth"], {})
    assert named(["stealth"], {"stealth": "probability@paraphrase"})["stealth"].attacks


def test_utility_is_always_about_what_is_kept() -> None:
    assert named([UTILITY], {UTILITY: "probability"})[UTILITY].drop
    assert not named(["refusal"], {})["refusal"].drop


def test_risks_of_one_pool_are_divided_alike(task: Task) -> None:
    """What the search looks at under one risk is in no other risk's sample."""
    sources = {FORGETTING: Source(FORGETTING), UTILITY: Source(UTILITY), "relearning": Source(FORGETTING, unheld=True)}
    view, sealed = split(task, 0.2, None, sources)
    plain_view, plain = split(task, 0.2)
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    searched = {query.id for queries_of_risk in view.queries.values() for query in queries_of_risk}
    assert not searched & {query.id for queries_of_risk in opened.values() for query in queries_of_risk}
    assert view.queries[FORGETTING] == plain_view.queries[FORGETTING]
    assert {q.id for q in opened["relearning"]} < {q.id for q in opened[FORGETTING]}
    # a further risk is another look at the same queries, not at others
    assert sealed.counted.opened == plain.counted.opened


def test_what_an_adversary_holds_is_not_measured(task: Task) -> None:
    sources = {"relearning": Source(FORGETTING, unheld=True)}
    view, sealed = split(task, 0.2, None, sources)
    known = {(row.group, row.answer) for row in material(view).known}
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    measured = {(q.row.group, q.row.answer) for q in (*opened["relearning"], *view.queries["relearning"])}
    assert known
    assert measured
    assert not known & measured
    assert known | measured >= {(row.group, row.answer) for row in task.forget}


def test_held_facts_are_a_quarter() -> None:
    share = sum(held(Row("q", f"answer {i}", "g")) for i in range(4000)) / 4000
    assert 0.22 < share < 0.28


def test_a_risk_that_cannot_be_measured_is_said_first(task: Task) -> None:
    view, _ = split(replace(task, holdout=()), 0.2, None, {"privacy": Source(FORGETTING)})
    with pytest.raises(InputError, match="add a file holdout"):
        refuse_unfit(view, {"privacy": measurement("membership")})
    view, _ = split(task, 0.2, None, {"options": Source(FORGETTING)})
    with pytest.raises(InputError, match="options"):
        refuse_unfit(view, {"options": measurement("multiple_choice")})


def test_rows_are_read_as_benchmarks_write_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "q", "choices": ["a", "b", "c"], "answer": 1},
        {
            "question": "q",
            "answer": "a",
            "perturbed_answer": ["b"],
            "paraphrased_question": "Q?",
            "paraphrased_answer": "A",
        },
        {"question": "q", "answer": "a", "others": [], "restated": "", "translations": None},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    assert read_rows(path) == (Row("q", "b", others=("a", "c")), Row("q", "a", "", ("b",), ("Q?",), "A"), Row("q", "a"))
    for bad, says in (({"answer": 3}, "no place in 'choices'"), ({"choices": [1], "answer": "a"}, "list of texts")):
        path.write_text(json.dumps([{"question": "q", "choices": ["a"], **bad}]))
        with pytest.raises(InputError, match=f"row 1.*{says}"):
            read_rows(path)


def test_rows_may_say_more_and_the_task_digest_knows(task: Task) -> None:
    row = Row("q", "a", "g", others=("b", "c"), paraphrases=("Q?",))
    more = replace(task, queries={**task.queries, FORGETTING: (row, *task.queries[FORGETTING])})
    changed = replace(
        more, queries={**more.queries, FORGETTING: (replace(row, others=("b",)), *task.queries[FORGETTING])}
    )
    assert more.digest != changed.digest
    # ids hang on question, answer and group alone
    assert more.key == changed.key
