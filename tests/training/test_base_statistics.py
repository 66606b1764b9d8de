"""Statistics of the base model: computed once, where they are needed, and equal to those of each row alone."""

from typing import Any

import numpy as np
import pytest
import torch

from froc.errors import InputError
from froc.training import base_statistics
from froc.training.base_statistics import BaseStatistics, TrainingRows
from tests.training.small import gpt2, passed, reference


def made() -> BaseStatistics:
    return reference(gpt2(11))


@pytest.mark.parametrize(
    ("needs", "present"),
    [
        ((), set()),
        (("sum_nll",), {"sum_nll"}),
        (("hidden",), {"hidden"}),
        (("hidden_norm",), {"norm"}),
        (("row_norm",), {"norm"}),
        (("token_distribution",), {"token_distribution"}),
        (("sum_nll", "hidden", "row_norm"), {"sum_nll", "hidden", "norm"}),
    ],
)
def test_only_what_is_needed_is_computed_and_only_once(
    needs: tuple[str, ...], present: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = made()
    statistics.prepare("forget", needs, (1,), 2)
    assert {
        name for name in ("sum_nll", "hidden", "norm", "token_distribution") if getattr(statistics, name)
    } == present
    assert set(statistics.hidden) <= {("forget", 1)}

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("a second pass over the same rows")

    monkeypatch.setattr(base_statistics, "Pass", again)
    statistics.prepare("forget", needs, (1,), 2)
    if needs:
        with pytest.raises(AssertionError, match="a second pass"):
            statistics.prepare("retain", needs, (1,), 2)


def test_numbers_are_those_of_each_row_alone_however_rows_are_batched() -> None:
    statistics = made()
    forward = passed(statistics, "forget", (1,))
    statistics.prepare("forget", ("sum_nll", "hidden", "row_norm"), (1,), 2)
    assert torch.allclose(statistics.sum_nll["forget"], forward.sum_nll, atol=1e-4)
    mean, per_row = statistics.norm["forget", 1]
    lengths = []
    for place, row in enumerate(statistics.pools.rows["forget"]):
        states = forward.hidden(1)[place, : len(row.ids)]
        assert torch.allclose(statistics.hidden["forget", 1][place], states, atol=1e-4)
        # states from which the answer and its end are predicted
        norms = states[row.prompt - 1 : len(row.ids) - 1].norm(dim=-1)
        assert float(per_row[place]) == pytest.approx(float(norms.mean()), rel=1e-4)
        lengths += norms.tolist()
    assert float(mean) == pytest.approx(np.mean(lengths), rel=1e-4)


def test_batches_hold_the_rows_that_their_indices_name() -> None:
    statistics = made()
    assert statistics.offsets == {"forget": 0, "retain": 5}
    batches = [index.tolist() for index, _ in statistics.batches("retain", 4)]
    assert sorted(i for index in batches for i in index) == list(range(6))
    assert [len(index) for index in batches] == [4, 2]
    for index, batch in statistics.batches("retain", 4):
        for row, i in zip(batch.ids.tolist(), index.tolist(), strict=True):
            ids = statistics.pools.rows["retain"][i].ids
            assert tuple(row[: len(ids)]) == ids


@pytest.mark.parametrize(
    ("most", "places"), [(None, [0, 1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5]), (5, [0, 2, 4]), (2, [0, 3]), (1, [0])]
)
def test_at_most_so_many_rows_are_read_evenly_spaced(most: int | None, places: list[int]) -> None:
    statistics = made()
    assert list(statistics.row_range("retain", most)) == places
    assert sorted(i for index, _ in statistics.batches("retain", 4, most) for i in index.tolist()) == places
    assert list(statistics.row_range("absent", most)) == []


def test_a_mean_gradient_is_that_of_the_mean_over_rows() -> None:
    statistics = made()
    weights = {name: p for name, p in statistics.base.model.named_parameters() if name.endswith("c_fc.weight")}
    mean = statistics.mean_gradient("retain", weights, size=2)
    rows = statistics.pools.rows["retain"]
    single = []
    for row in rows:
        alone = BaseStatistics(statistics.base, TrainingRows({"retain": [row]}))
        single.append(alone.mean_gradient("retain", weights))
    for name in weights:
        assert torch.allclose(mean[name], torch.stack([grads[name] for grads in single]).mean(0), atol=1e-6)
        assert float(mean[name].abs().max()) > 0
        assert weights[name].grad is None
    assert statistics.mean_gradient("retain", {}) == {}


def test_rows_that_a_task_lacks_are_named() -> None:
    statistics = made()
    with pytest.raises(InputError, match=r"needs refusal rows.*add idk\.txt"):
        statistics.ensure("refusal")
    with pytest.raises(InputError, match=r"needs mine rows.*add mine\.jsonl"):
        statistics.ensure("mine")
