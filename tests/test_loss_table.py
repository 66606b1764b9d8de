"""The loss table: rounding against the claim, refusals that name the row, the order of units, and losses of its first units alone."""

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc import certify, hashing
from froc.errors import InputError
from froc.loss_table import (
    NOISE,
    SCALE,
    SCHEMA,
    check,
    dataframe,
    matrix,
    place,
    prefixes,
    quantise,
    refuse_shared_units,
)


def table(**columns: Any) -> pl.DataFrame:
    """Two configurations, three queries each, losses as floats; columns given replace these."""
    base = {
        "config": ["a"] * 3 + ["b"] * 3,
        "risk": ["forgetting"] * 6,
        "query": ["q1", "q2", "q3"] * 2,
        "loss": [0.0, 0.25, 1.0, 0.5, 0.1, 0.029],
    }
    return pl.DataFrame(base | columns)


def test_every_thousandth_survives() -> None:
    whole = np.arange(SCALE + 1)
    assert (quantise(whole / SCALE) == whole).all()
    assert (quantise((whole / SCALE).astype(np.float32)) == whole).all()
    assert quantise(0.1 * 3).item() == 300


@given(st.floats(0, 1))
def test_quantise_rounds_up_by_less_than_a_thousandth(loss: float) -> None:
    whole = int(quantise([loss])[0])
    assert 0 <= whole <= SCALE
    assert loss - NOISE <= whole / SCALE < loss + 1 / SCALE


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, -1e-12, 1.0000001])
def test_quantise_refuses_what_is_no_loss(loss: float) -> None:
    with pytest.raises(InputError):
        quantise([0.5, loss])


def test_check_fills_in_and_normalises() -> None:
    checked = check(table())
    assert dict(checked.schema) == SCHEMA
    assert checked["loss"].to_list() == [0, 250, 1000, 500, 100, 29]
    assert set(checked["metric"]) == {"loss"}
    assert set(checked["split"]) == {"calibration"}
    assert checked["unit"].to_list() == checked["query"].to_list()
    assert check(checked).equals(checked)


def test_check_takes_thousandths_numbers_as_names_and_categories() -> None:
    checked = check(table(loss=[0, 250, 1000, 1, 0, 29], query=[1, 2, 3] * 2), "thousandths")
    assert checked["loss"].to_list() == [0, 250, 1000, 1, 0, 29]
    assert checked["query"].to_list() == ["1", "2", "3"] * 2
    assert check(table().with_columns(pl.col("config").cast(pl.Categorical)))["config"][0] == "a"


def test_whole_numbers_are_thousandths_where_said_or_where_froc_made_the_table() -> None:
    """Type alone says nothing: a grade may be an Int16, too. A table with all columns of ours in our order is ours."""
    assert check(table(loss=[0, 1, 1, 0, 0, 1]))["loss"].sum() == 3 * SCALE
    assert check(table(loss=[0, 1, 1, 0, 0, 1]), "thousandths")["loss"].sum() == 3
    for kind in (pl.Int8, pl.Int16, pl.UInt32, pl.Int64):
        with pytest.raises(InputError, match=r"row 2: .* any scale; divide .* --scale thousandths .*\(4 more"):
            check(table(loss=pl.Series([1, 5, 3, 4, 2, 5], dtype=kind)))
    own = check(table(loss=pl.Series([1, 5, 3, 4, 2, 5], dtype=pl.Int16)), "thousandths")
    assert check(own).equals(own)
    for second in (own.drop("metric"), own.cast({"loss": pl.Int32}), own.select(reversed(own.columns))):
        with pytest.raises(InputError, match="any scale"):
            check(second)
    for outside in (-1, SCALE + 1):
        with pytest.raises(InputError, match=r"row 3: loss is outside 0\.\.1000 thousandths"):
            check(table(loss=[0, SCALE, outside, 0, 0, 1]), "thousandths")
    with pytest.raises(InputError, match="no whole numbers"):
        check(table(), "thousandths")
    with pytest.raises(InputError, match="no scale is called"):
        check(table(), "percent")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"loss": [0.0, math.nan, 1, 0, 0, 0]}, r"row 2: loss is no number in \[0, 1\]"),
    ({"loss": [0.0, 0, 1, 0, 1.0000001, 0]}, r"row 5: loss is no number in \[0, 1\]"),
    ({"loss": [0.0, 0, 1, -0.1, 1, -0.2]}, r"row 4: .*\(1 more rows like it\)"),
    ({"loss": [0, 0, 1001, 0, 0, 0]}, r"row 3: loss is a whole number above 1"),
    ({"loss": [0, 0, -1, 0, 0, 0]}, r"row 3: loss is no number in"),
    ({"loss": [0.0, None, 1, 0, 0, 0]}, "row 2: loss is missing; .* counts as 1"),
    ({"loss": ["0"] * 6}, "the column loss holds String"),
    ({"loss": [True] * 6}, "the column loss holds Boolean"),
    ({"config": ["a", None, "a", "b", "b", "b"]}, "row 2: config is missing"),
    ({"query": ["q1", "q2", " ", "q1", "q2", "q3"]}, "row 3: query is missing"),
    ({"config": [[1]] * 6}, r"the column config holds List\(Int64\); give text"),
    ({"query": ["q1", "q2", "q1"] * 2}, "row 3: repeats an earlier row.*1 more"),
    ({"split": ["test"] * 6}, "row 1: the split is neither 'search' nor 'calibration'"),
    ({"split": ["search"] * 3 + ["calibration"] * 3}, "row 4: its query is in the other split"),
    ({"unit": ["u", "u", "v", "u", "v", "v"]}, "row 5: its query has another unit"),
    ({"query": ["q1", "q2", "q3", "q1", "q2", "q4"]}, "'a' lacks 1 calibration queries .* that 'b' has"),
    ({"risk": ["forgetting"] * 5 + ["utility"]}, "'a' lacks 1 calibration queries of utility"),
    ({"metric": ["x"] * 3 + ["y"] * 3}, "risk 'forgetting' has several metrics"),
    ({"colour": ["red"] * 6}, "unknown column 'colour'; remove it"),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_check_names_the_row_and_the_mend(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(table(**columns))


@pytest.mark.parametrize("column", ["config", "risk", "query", "loss"])
def test_check_names_a_missing_column(column: str) -> None:
    with pytest.raises(InputError, match=f"no column '{column}'"):
        check(table().drop(column))


def test_check_refuses_an_empty_table() -> None:
    with pytest.raises(InputError, match="empty"):
        check(table().clear())


def test_search_may_hold_more_configurations_than_calibration() -> None:
    search = table(split=["search"] * 6)
    sealed = table(split=["calibration"] * 6, query=["q4", "q5", "q6"] * 2).filter(pl.col("config") == "a")
    assert len(check(pl.concat([search, sealed]))) == 9


def test_matrix_has_configs_as_asked_and_units_by_digest() -> None:
    loss_matrix = matrix(check(table()), risk="forgetting", split="calibration", configs=["b", "a"], unit="query")
    assert loss_matrix.configs == ("b", "a")
    assert list(loss_matrix.units) == sorted(("q1", "q2", "q3"), key=lambda name: hashing.sha256_bytes(name.encode()))
    by_name = dict(zip(loss_matrix.units, loss_matrix.values.T.tolist(), strict=True))
    assert by_name == {"q1": [500, 0], "q2": [100, 250], "q3": [29, 1000]}
    assert loss_matrix.values.dtype == np.int16


@given(st.permutations(range(6)))
def test_matrix_ignores_the_order_of_rows(order: list[int]) -> None:
    checked = check(table())
    wanted = matrix(checked, risk="forgetting", split="calibration", configs=["a", "b"], unit="query")
    loss_matrix = matrix(checked[order], risk="forgetting", split="calibration", configs=["a", "b"], unit="query")
    assert loss_matrix.units == wanted.units
    assert (loss_matrix.values == wanted.values).all()


def test_group_means_are_rounded_up() -> None:
    checked = check(table(unit=["u", "u", "v"] * 2, loss=[0, 1, 1000, 333, 334, 7]), "thousandths")
    loss_matrix = matrix(checked, risk="forgetting", split="calibration", configs=["a", "b"], unit="group")
    by_name = dict(zip(loss_matrix.units, loss_matrix.values.T.tolist(), strict=True))
    assert by_name == {"u": [1, 334], "v": [1000, 7]}


@pytest.mark.parametrize("name", ["query", "unit", "loss", "count"])
def test_a_configuration_may_be_called_like_a_column(name: str) -> None:
    checked = check(table(config=[name] * 3 + ["b"] * 3))
    loss_matrix = matrix(checked, risk="forgetting", split="calibration", configs=[name, "b"], unit="query")
    assert loss_matrix.values.sum(axis=1).tolist() == [1250, 629]


def test_matrix_refuses_what_it_cannot_compare() -> None:
    checked = check(table())

    def ask(frame: pl.DataFrame, risk: str = "forgetting", unit: str = "query", configs: str = "ab") -> None:
        matrix(frame, risk=risk, split="calibration", configs=list(configs), unit=unit)

    with pytest.raises(InputError, match="no calibration rows for risk 'utility'"):
        ask(checked, risk="utility")
    with pytest.raises(InputError, match="no unit is called 'author'"):
        ask(checked, unit="author")
    with pytest.raises(InputError, match="not all measured"):
        ask(checked, configs="abc")
    with pytest.raises(InputError, match="not all measured"):
        ask(checked[:5])
    with pytest.raises(InputError, match="not all measured"):
        ask(checked.with_columns(unit=pl.lit("u"))[:5], unit="group")
    with pytest.raises(InputError, match="twice"):
        ask(pl.concat([checked, checked]))
    for loss in (pl.col("loss") / SCALE, pl.col("loss") * 2, pl.lit(None, pl.Int16)):
        with pytest.raises(InputError, match="not whole thousandths"):
            ask(checked.with_columns(loss=loss))


def test_a_unit_in_both_splits_cannot_be_drawn() -> None:
    """Of the risk that is asked for; another's units do not count."""
    splits = ["search", "calibration", "calibration"] * 2
    shared = check(table(split=splits, unit=["u", "u", "v"] * 2))
    refuse_shared_units(shared, "utility")
    refuse_shared_units(check(table(split=splits, unit=["u", "v", "v"] * 2)), "forgetting")
    with pytest.raises(InputError, match=r"unit 'u' has rows in both splits \(1 such units\)"):
        refuse_shared_units(shared, "forgetting")


def test_any_dataframe_is_read() -> None:
    """The same certificate, plan and stream from pandas, PyArrow and lazy Polars."""
    table = pl.DataFrame({"config": "a", "risk": "r", "query": [f"q{i}" for i in range(60)], "loss": [0.0, 0.25] * 30})
    kinds = (table, table.lazy(), table.to_arrow(), pd.DataFrame(table.to_dict(as_series=False)))
    documents = [certify(kind, 0.3).document for kind in kinds]
    assert documents == documents[:1] * len(kinds)
    assert documents[0]["candidates"][0]["n"] == {"r": 60}
    assert dataframe("losses.csv") is None


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


def first_losses(frame: pl.DataFrame, *configs: str, unit: str = "query") -> tuple[list[list[int]], int]:
    """Losses of each configuration on the first units of the sealed order, and the number of units planned."""
    losses, planned = prefixes(frame, ORDER, risk="r", configs=configs, unit=unit)
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
    measured = pl.concat([rows("b", second), rows("a", dict(sorted(first.items())))])
    assert first_losses(measured, "a", "b") == ([[10, 20, 30, 40], [7, 8]], 6)
    assert first_losses(measured, "b", "a") == ([[7, 8], [10, 20, 30, 40]], 6)
    # nothing measured is the shortest beginning, all of it the longest
    assert first_losses(measured, "c") == ([[]], 6)
    whole = dict.fromkeys(BY_QUERY, 5)
    assert first_losses(rows("a", whole), "a") == ([[5] * 6], 6)


def test_a_unit_is_the_mean_of_its_queries_rounded_up() -> None:
    """Thousandths 1 and 2 are 1.5 on average, and 2 in whole ones; 4 and 6 are 5."""
    first, second = BY_UNIT[:2]
    losses = dict(zip([q for q in QUERIES if UNIT[q] == first], (1, 2), strict=True))
    losses |= dict(zip([q for q in QUERIES if UNIT[q] == second], (4, 6), strict=True))
    assert first_losses(rows("a", losses), "a", unit="group") == ([[2, 5]], 3)
    # more than 16 bits together, before they are divided
    assert first_losses(rows("a", dict.fromkeys(losses, 1000)), "a", unit="group") == ([[1000, 1000]], 3)


def test_other_risks_splits_and_configurations_are_not_looked_at() -> None:
    own = rows("a", {BY_QUERY[0]: 10})
    others = [
        rows("a", {BY_QUERY[3]: 99}, split="search"), rows("a", {BY_QUERY[3]: 99}, risk="s"), rows("z", {"q9": 99}),
    ]  # fmt: skip
    assert first_losses(pl.concat([own, *others]), "a") == ([[10]], 6)


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_leaving_out_is_no_stopping_early(left_out: int) -> None:
    """Any of the first units but the last."""
    losses = dict.fromkeys(BY_QUERY[:4], 0)
    del losses[BY_QUERY[left_out]]
    with pytest.raises(InputError, match="risk 'r': b was not measured on the first units of the sealed order"):
        first_losses(pl.concat([rows("a", dict.fromkeys(BY_QUERY, 0)), rows("b", losses)]), "a", "b")


def test_a_unit_is_measured_as_a_whole_or_not_at_all() -> None:
    half = next(query for query in QUERIES if UNIT[query] == BY_UNIT[0])
    with pytest.raises(InputError, match="a was not measured on the first units"):
        first_losses(rows("a", {half: 0}), "a", unit="group")


def test_a_query_that_was_not_sealed_is_refused() -> None:
    with pytest.raises(InputError, match="not in the sealed order, or of another unit"):
        first_losses(rows("a", {BY_QUERY[0]: 0, "q9": 0}), "a")
    moved = rows("a", {BY_QUERY[0]: 0}).with_columns(unit=pl.lit("u9"))
    with pytest.raises(InputError, match="not in the sealed order, or of another unit"):
        first_losses(moved, "a")
