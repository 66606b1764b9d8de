"""Rows that a model cannot take are refused before anything is trained or opened: nothing here runs the model."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from froc.batches import Limits, encode
from froc.data import SearchView, Task
from froc.measure import material
from froc.models import Base
from froc.risks import Measurement
from froc.rows import Row


def refuse_rows(base: Base, task: Task, view: SearchView, measures: Mapping[str, Measurement]) -> None:
    """InputError naming file and row where a row, one of its other answers, or a form that an attack asks it in has too many
    tokens, unknown ones or none. Of all queries, sealed ones too: what is known of them is their length alone."""
    limits = Limits.of(base.model)
    for name, rows in _every(task, view, measures):
        encode(base.tokenizer, rows, view.template, limits, name)


def _every(task: Task, view: SearchView, measures: Mapping[str, Measurement]) -> Iterator[tuple[str, list[Row]]]:
    earlier = task.earlier.rows if task.earlier else ()
    queries = {f"{pool} queries": rows for pool, rows in task.queries.items()}
    for name, rows in {
        "forget": task.forget, "retain": task.retain, **queries, "holdout": task.holdout, "earlier": earlier,
    }.items():  # fmt: skip
        yield name, list(rows)
    for one in measures.values():
        asked = list(task.queries.get(one.pool, ()))
        if "others" in one.metric.reads:
            yield (
                f"{one.pool} queries",
                [replace(row, answer=text) for row in asked for text in (*row.others, row.restated) if text],
            )
        for attack in one.attacks:
            for form in attack.ask(asked, material(view, one.pool)) if asked else ():
                yield f"{one.pool} queries under {attack}", list(form)
