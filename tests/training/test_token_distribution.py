"""Which next-token distributions are kept whole, and which as the likeliest tokens and one bucket for the others."""

import pytest
import torch

from froc.training import token_distribution
from froc.training.token_distribution import TokenDistribution
from tests.training.small import gpt2, reference

V = 11


@pytest.mark.parametrize(
    ("exact", "likeliest", "whole"),
    [
        # few values, many values of few tokens, and neither
        (1, 0, True), (0, V, True), (0, V - 1, False), (1, V - 1, True),
    ],
)  # fmt: skip
def test_distributions_are_whole_where_values_or_tokens_are_few(
    exact: int, likeliest: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exact: 1 where as many values may be kept whole as there are, 0 where one fewer. likeliest: tokens kept otherwise."""
    statistics = reference(gpt2(V))
    rows = statistics.pools.rows["forget"]
    values = V * sum(len(row.ids) - row.prompt for row in rows)
    monkeypatch.setattr(token_distribution, "EXACT", values if exact else values - 1)
    monkeypatch.setattr(token_distribution, "LIKELIEST", likeliest)
    kept, tokens = TokenDistribution(rows, statistics.base).of(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert kept.shape == (2, V if whole else likeliest + 1)
    assert tokens.shape == ((0,) if whole else (2, likeliest))
