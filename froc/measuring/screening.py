"""Rows that a model cannot take are refused before anything is trained or opened: nothing here runs the model."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from froc.data.rows import Row
from froc.data.splits import SearchView
from froc.data.task import Task
from froc.measuring.measure import material
from froc.measuring.measurement import Measurement
from froc.models.base import Base
from froc.models.batches import Limits, encode


def refuse_rows(base: Base, task: Task, view: SearchView, measures: Mapping[str, Measurement]) -> None:
    """InputError naming file and row where a row, one of its other answers, or a form that an attack asks it in has too many
    tokens, unknown ones or none. Of all queries, sealed ones too: what is known of them is their length alone."""
    limits = Limits.of(base.model)
    for name, rows in _given(task):
        encode(base.tokenizer, rows, view.template, limits, name)
    for one in measures.values():
        asked, held = list(task.queries.get(one.pool, ())), material(view, one.pool)
        name = f"{one.pool} queries"
        if "others" in one.metric.reads:
            others = [replace(row, answer=text) for row in asked for text in (*row.others, row.restated) if text]
            encode(base.tokenizer, others, view.template, limits, name)
        for attack in one.attacks:
            forms = [list(form) for form in attack.ask(asked, held)] if asked else []
            for some in [*forms, list(held.known)] if attack.adds else forms:
                encode(base.tokenizer, some, view.template, limits.without(attack.adds), name)


def _given(task: Task) -> Iterator[tuple[str, tuple[Row, ...]]]:
    yield from (("forget", task.forget), ("retain", task.retain), ("holdout", task.holdout))
    yield from ((f"{pool} queries", rows) for pool, rows in task.queries.items())
    if task.earlier:
        yield "earlier", task.earlier.rows
