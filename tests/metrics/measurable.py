"""What metrics need beside the small task: options and other answers, a judge, a retrained model."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from froc.data.splits import SearchView
from froc.data.task import FORGETTING, Query, Row
from froc.measuring.metric import Metric
from froc.models.base import Base
from froc.plugins import names

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in names(Metric)),
    *(("membership", {"score": score}) for score in ("loss", "zlib", "min_k_pp", "reference", "gradient")),
    ("membership", {"over": 1}),
    *(("truth_ratio", {"form": form, "mean": mean}) for form in ("ratio", "margin") for mean in ("arithmetic", "geometric")),
    ("knn_hit", {"layer": 0, "k": 3}),
]  # fmt: skip


def random_judge(base: Base, folder: Path) -> str:
    """A classifier of random weights, saved."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(base.tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=130, id2label={0: "NOT_ENTAILMENT", 1: "ENTAILMENT"}, label2id={"NOT_ENTAILMENT": 0, "ENTAILMENT": 1},
        initializer_range=0.5,
    )  # fmt: skip
    made: Any = BertForSequenceClassification(config)
    made.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    expected = AutoTokenizer.from_pretrained(folder)
    expected.pad_token = expected.eos_token
    expected.save_pretrained(folder)
    return str(folder)


def weaker(base: Base, folder: Path) -> str:
    """A model of the base's shape that knows less, saved."""
    expected: Any = copy.deepcopy(base.model)
    with torch.no_grad():
        for p in expected.parameters():
            p.mul_(0.8)
    expected.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return str(folder)


def rich_view(view: SearchView) -> SearchView:
    """A dozen queries of either pool that every metric can measure."""
    strange = tuple(Row(f"who made {word}?", word, "none") for word in ("amber zither", "olive engine", "rusty hammer"))

    def more(row: Row, i: int) -> Row:
        others = ("velvet temple", "misty jacket", "quiet ribbon")[: 1 + i % 3]
        return replace(
            row, others=tuple(o for o in others if o != row.answer), restated=f"it is {row.answer}" if i % 2 else ""
        )

    def query(query: Query, i: int) -> Query:
        return replace(query, row=more(query.row, i))

    result = {
        pool: tuple(query(q, i) for i, q in enumerate(queries_of_risk[:12]))
        for pool, queries_of_risk in view.queries.items()
    }
    forget = view.forget + tuple(
        Row(f"and what has {i}?", q.row.answer, f"twin {i}") for i, q in enumerate(result[FORGETTING])
    )
    # one question is also another person's
    first = result[FORGETTING][0]
    result[FORGETTING] = (*result[FORGETTING], Query("twin", "twin", replace(first.row, question="and?", group="twin")))
    retain = tuple(
        replace(row, others=tuple(o for o in ("velvet temple", "misty jacket") if o != row.answer))
        for row in view.retain
    )
    return replace(view, queries=result, forget=forget, retain=retain, holdout=strange)
