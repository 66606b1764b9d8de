"""Refusal of rows that a model cannot take, before anything is trained or opened. Does not run the model."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from froc.data.rows import Row
from froc.data.splits import SearchView
from froc.data.task import Task
from froc.measuring.measurement import Measurement
from froc.measuring.query_losses import material
from froc.models.base import Base
from froc.models.batches import Limits, encode


def refuse_rows(base: Base, task: Task, view: SearchView, measures: Mapping[str, Measurement]) -> None:
    """InputError, naming file and row, where a row, one of its other answers or an attacked form has too many tokens, unknown tokens or none.

    All queries are checked, sealed ones too; only their lengths become known.
    """
    limits = Limits.of(base.model)
    for name, rows in _rows_by_name(task):
        encode(base.tokenizer, rows, view.template, limits, name)
    for measurement in measures.values():
        queries, held = list(task.queries.get(measurement.pool, ())), material(view, measurement.pool)
        name = f"{measurement.pool} queries"
        if "others" in measurement.metric.reads:
            others = [replace(row, answer=text) for row in queries for text in (*row.others, row.restated) if text]
            encode(base.tokenizer, others, view.template, limits, name)
        for attack in measurement.attacks:
            forms = [list(form) for form in attack.ask(queries, held)] if queries else []
            for form in [*forms, list(held.known)] if attack.adds else forms:
                encode(base.tokenizer, form, view.template, limits.without(attack.adds), name)


def _rows_by_name(task: Task) -> Iterator[tuple[str, tuple[Row, ...]]]:
    yield from (("forget", task.forget), ("retain", task.retain), ("holdout", task.holdout))
    yield from ((f"{pool} queries", rows) for pool, rows in task.queries.items())
    if task.earlier:
        yield "earlier", task.earlier.rows
