"""The table of losses."""

from collections.abc import Callable

from tests.audit.cases.forging import Attack, Case, edited, lines


def _cell(place: int, value: str) -> Attack:
    def edit(rows: list[str]) -> None:
        cells = rows[5].split(",")
        cells[place] = value
        rows[5] = ",".join(cells)

    return lines(edit)


def _drop_worst(rows: list[str]) -> None:
    rows.remove(next(row for row in rows if row.startswith("c0001") and row.endswith(",1000")))


def _drop_for_all(rows: list[str]) -> None:
    query = rows[1].split(",")[4]
    rows[:] = [row for row in rows if query not in row]


def _swap(rows: list[str]) -> None:
    rows[3], rows[4] = rows[4], rows[3]


def _unplanned(rows: list[str]) -> None:
    rows += [row.replace("c0003", "c0004") for row in rows if row.startswith("c0003")]


def _smuggled(rows: list[str]) -> None:
    """Search rows of utility, in their place: a claim about queries has no use for what the search has seen."""
    more = [row.replace(",calibration,", ",search,") for row in rows[1:] if ",utility," in row]
    rows[1:] = sorted([*rows[1:], *more], key=lambda row: [*row.split(",")[:3], row.split(",")[4]])


def _base(change: Callable[[list[str]], str | None]) -> Attack:
    """Edit the cells of the base model's rows; None takes a row out."""

    def edit(rows: list[str]) -> None:
        kept = [change(row.split(",")) if row.startswith("base,") else row for row in rows]
        rows[:] = [row for row in kept if row is not None]

    return lines(edit)


CASES: dict[str, Case] = {
    "the base model's rows taken out": Case("table-missing-row", _base(lambda cells: None)),
    "a base model that knew nothing": Case("statistics-differ", _base(lambda cells: ",".join([*cells[:5], "1000"]))),
    "a base model that knew more": Case("statistics-differ", _base(lambda cells: ",".join([*cells[:5], "0"]))),
    "a base model measured in part": Case("table-other-queries", lines(lambda ls: ls.pop(2)), "early"),
    "worst row dropped": Case("table-missing-row", lines(_drop_worst)),
    "a query dropped for all": Case("table-other-queries", lines(_drop_for_all)),
    "row repeated": Case("table-duplicate-row", lines(lambda ls: ls.insert(5, ls[5]))),
    "rows swapped": Case("table-order", lines(_swap)),
    "unplanned configuration": Case("table-unplanned-row", lines(_unplanned)),
    "unplanned risk": Case("table-unplanned-row", _cell(2, "privacy")),
    "another split": Case("table-split", _cell(1, "training")),
    "a search row": Case("table-order", _cell(1, "search")),
    "search rows smuggled in": Case("table-other-queries", lines(_smuggled)),
    "readable query": Case("table-example-id", _cell(4, "who is ann")),
    "another unit": Case("table-unit-id", _cell(3, "0" * 16)),
    "loss blank": Case("table-loss-format", _cell(5, "")),
    "loss NaN": Case("table-loss-format", _cell(5, "nan")),
    "loss too large": Case("table-loss-format", _cell(5, "1001")),
    "loss negative": Case("table-loss-format", _cell(5, "-1")),
    "loss with zeros before": Case("table-loss-format", _cell(5, "007")),
    "loss with exponent": Case("table-loss-format", _cell(5, "1e2")),
    "loss with underscore": Case("table-loss-format", _cell(5, "1_0")),
    "loss in full-width digits": Case("table-loss-format", _cell(5, "\uff11")),
    "loss lowered": Case("statistics-differ", lines(lambda ls: ls.__setitem__(slice(None), [line.replace(",1000", ",0") for line in ls]))),
    "text column": Case("table-header", edited("losses.csv", lambda t: t.replace("query,loss", "query,loss,text", 1))),
    "text cells": Case("table-columns", lines(lambda ls: ls.__setitem__(3, ls[3] + ",Ann"))),
    "no last line feed": Case("table-line-ending", edited("losses.csv", lambda t: t[:-1])),
    "carriage returns": Case("table-header", edited("losses.csv", lambda t: t.replace("\n", "\r\n"))),
    "stopped early, then later units": Case("statistics-refused", lines(lambda ls: ls.remove(next(row for row in ls if row.startswith("c0")))), "early"),
    "loss of neither 0 nor 1": Case("statistics-refused", _cell(5, "500")),
    "another form of configuration": Case("table-config", _cell(0, "best")),
    "another form of risk": Case("table-risk", _cell(2, "Ann")),
    "another form of unit": Case("table-unit-id", _cell(3, "ann")),
}  # fmt: skip
