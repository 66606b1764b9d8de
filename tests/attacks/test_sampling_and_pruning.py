"""What best-of-k sampling estimates, and what pruning takes away."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from froc.attacks.pruning import Pruning
from froc.attacks.sampling import Sampling
from froc.data.prompts import PromptFormat
from froc.data.task import Row
from froc.errors import InputError
from froc.measuring.attack import Material, parameters
from froc.measuring.measurement import measurement
from froc.measuring.model_observation import observe
from froc.models.base import Base
from tests.methods.part_losses import tiny_statistics
from tests.training.small import NO_TOKENIZER

WORDS: Any = SimpleNamespace(batch_decode=lambda rows, **_: [" ".join(map(str, ids)) for ids in rows])
"""Token ids as words."""


def _material(seed: int) -> Material:
    return Material((), (), (), PromptFormat("{question} {answer}"), seed)


def test_the_chance_that_any_of_k_answers_leaks_is_estimated_without_bias() -> None:
    """Of the answer's first token, whose probability p a pass gives: 1 - (1 - p)^k, over 13 queries and 8 seeds."""
    made = tiny_statistics()
    rows = [*made.pools.rows["forget"], *made.pools.rows["retain"]]
    queries = [Row("q", str(i)) for i in range(len(rows))]
    k, seeds = 12, 8
    p = np.exp(observe(made.base.model, NO_TOKENIZER, rows).logp[:, 0].astype(np.float64))
    chance = np.tile(1 - (1 - p) ** k, seeds)
    assert 0.05 < chance.mean() < 0.9
    leaked = []
    for seed in range(seeds):
        attack = Sampling(k).observations(
            made.base.model, WORDS, rows, queries, frozenset({"written"}), _material(seed)
        )
        written = [observation.written or () for observation in attack]
        assert len(written) == k
        leaked += [
            any(texts[i].split(" ")[0] == str(row.answer_ids[0]) for texts in written) for i, row in enumerate(rows)
        ]
    error = np.sqrt((chance * (1 - chance)).sum()) / len(chance)
    assert abs(np.mean(leaked) - chance.mean()) < 3 * error


def test_draws_of_a_query_hang_on_nothing_but_the_query_and_the_seed() -> None:
    made = tiny_statistics()
    rows = made.pools.rows["forget"]
    queries = [Row("q", str(i)) for i in range(len(rows))]

    def written(places: list[int], seed: int) -> list[tuple[str, ...]]:
        subset_rows, subset_queries = [rows[i] for i in places], [queries[i] for i in places]
        attack = Sampling(4).observations(
            made.base.model, WORDS, subset_rows, subset_queries, frozenset({"written"}), _material(seed)
        )
        return list(zip(*(observation.written or () for observation in attack), strict=True))

    whole = written([0, 1, 2, 3], 1)
    assert written([3, 1], 1) == [whole[3], whole[1]]
    assert written([0, 1, 2, 3], 2) != whole
    assert all(len(set(draws)) > 1 for draws in whole)


def test_a_metric_that_reads_nothing_written_cannot_show_it() -> None:
    with pytest.raises(InputError, match=r"sampling acts on what is written, which probability does not read.*rouge_l"):
        measurement("probability@sampling")
    assert str(measurement("rouge_l@sampling:k=4+role_play")) == "rouge_l@sampling:k=4+role_play"


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_share_that_prunes_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"outside \(0, 1\)"):
        measurement(f"rouge_l@pruning:share={share}")


def test_pruning_takes_the_smallest_weights_of_every_matrix(base: Base) -> None:
    base.restore()
    model: Any = copy.deepcopy(base.model)
    Pruning(0.25).change(model, base.tokenizer, _material(0))
    ends = {"model.embed_tokens.weight", "lm_head.weight"}
    before = dict(base.model.named_parameters())
    for name, pruned in parameters(model).items():
        was = before[name]
        if was.ndim < 2 or name in ends:
            assert torch.equal(pruned, was)
            continue
        gone = (pruned == 0) & (was != 0)
        assert int(gone.sum()) == int(0.25 * was.numel())
        assert was[gone].abs().max().item() <= was[~gone].abs().min().item()
        assert torch.equal(pruned[~gone], was[~gone])
