"""Losses of candidates that were measured on the first units of the sealed order only."""

import numpy as np
import polars as pl
import pytest

from froc.errors import InputError
from froc.loss_table import SCHEMA, place, prefixes

QUERIES = [f"q{i}" for i in range(6)]
"""Two to a unit: q0 and q1 are u0, and so on."""
UNIT = {query: f"u{i // 2}" for i, query in enumerate(QUERIES)}
ORDER = pl.DataFrame({"query": QUERIES, "unit": [UNIT[query] for query in QUERIES]})
BY_QUERY = sorted(QUERIES, key=place)
BY_UNIT = sorted(set(UNIT.values()), key=place)


def rows(config: str, losses: dict[str, int], split: str = "calibration", risk: str = "r") -> pl.DataFrame:
    """Rows of one configuration, query -> thousandths, as a checked table has them."""
    data = {
        "config": config, "risk": risk, "metric": "m", "split": split, "unit": [UNIT.get(q, "u9") for q in losses],
        "query": list(losses), "loss": list(losses.values()),
    }  # fmt: skip
    return pl.DataFrame(data, schema_overrides=SCHEMA)


def of(table: pl.DataFrame, *configs: str, unit: str = "query") -> tuple[list[list[int]], int]:
    """The losses of each, and units planned."""
    losses, planned = prefixes(table, ORDER, risk="r", configs=configs, unit=unit)
    assert all(row.dtype == np.int16 and row.ndim == 2 and len(row) == 1 for row in losses)
    return [row[0].tolist() for row in losses], planned


def test_ids_are_in_another_order_than_the_sealed_one() -> None:
    """Else no test here could tell them apart."""
    assert BY_QUERY != QUERIES
    assert sorted(BY_UNIT) != BY_UNIT


def test_losses_stand_in_the_sealed_order_and_what_was_planned_is_counted() -> None:
    first = dict(zip(BY_QUERY[:4], (10, 20, 30, 40), strict=True))
    second = dict(zip(BY_QUERY[:2], (7, 8), strict=True))
    # written in any order
    table = pl.concat([rows("b", second), rows("a", dict(sorted(first.items())))])
    assert of(table, "a", "b") == ([[10, 20, 30, 40], [7, 8]], 6)
    assert of(table, "b", "a") == ([[7, 8], [10, 20, 30, 40]], 6)
    # nothing measured is the shortest beginning, all of it the longest
    assert of(table, "c") == ([[]], 6)
    whole = dict.fromkeys(BY_QUERY, 5)
    assert of(rows("a", whole), "a") == ([[5] * 6], 6)


def test_a_unit_is_the_mean_of_its_queries_rounded_up() -> None:
    """Thousandths 1 and 2 are 1.5 on average, and 2 in whole ones; 4 and 6 are 5."""
    first, second = BY_UNIT[:2]
    losses = dict(zip([q for q in QUERIES if UNIT[q] == first], (1, 2), strict=True))
    losses |= dict(zip([q for q in QUERIES if UNIT[q] == second], (4, 6), strict=True))
    assert of(rows("a", losses), "a", unit="group") == ([[2, 5]], 3)
    # more than 16 bits together, before they are divided
    assert of(rows("a", dict.fromkeys(losses, 1000)), "a", unit="group") == ([[1000, 1000]], 3)


def test_other_risks_splits_and_configurations_are_not_looked_at() -> None:
    own = rows("a", {BY_QUERY[0]: 10})
    others = [
        rows("a", {BY_QUERY[3]: 99}, split="search"), rows("a", {BY_QUERY[3]: 99}, risk="s"), rows("z", {"q9": 99}),
    ]  # fmt: skip
    assert of(pl.concat([own, *others]), "a") == ([[10]], 6)


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_leaving_out_is_no_stopping_early(left_out: int) -> None:
    """Any of the first units but the last."""
    losses = dict.fromkeys(BY_QUERY[:4], 0)
    del losses[BY_QUERY[left_out]]
    with pytest.raises(InputError, match="risk 'r': b was not measured on the first units of the sealed order"):
        of(pl.concat([rows("a", dict.fromkeys(BY_QUERY, 0)), rows("b", losses)]), "a", "b")


def test_a_unit_is_measured_as_a_whole_or_not_at_all() -> None:
    half = next(query for query in QUERIES if UNIT[query] == BY_UNIT[0])
    with pytest.raises(InputError, match="a was not measured on the first units"):
        of(rows("a", {half: 0}), "a", unit="group")


def test_a_query_that_was_not_sealed_is_refused() -> None:
    with pytest.raises(InputError, match="not in the sealed order, or of another unit"):
        of(rows("a", {BY_QUERY[0]: 0, "q9": 0}), "a")
    moved = rows("a", {BY_QUERY[0]: 0}).with_columns(unit=pl.lit("u9"))
    with pytest.raises(InputError, match="not in the sealed order, or of another unit"):
        of(moved, "a")
