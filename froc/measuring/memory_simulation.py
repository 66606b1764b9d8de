"""Measuring on torch's meta device: the bytes that a look or an attack would need, counted from its own code, before anything is measured."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from torch import Tensor
from transformers.utils import logging

from froc.data.splits import SearchView
from froc.data.task import Query
from froc.measuring.attack import Attack
from froc.measuring.measurement import Measurement
from froc.measuring.model_observation import BATCH_ROWS
from froc.measuring.query_losses import measured, probes
from froc.models.allocations import counted
from froc.models.base import Base
from froc.models.batches import encode
from froc.models.device_room import room_on_meta
from froc.models.memory_needs import MemoryNeeds
from froc.models.nf4 import held
from froc.models.trainable import Full

STEPS = 2
"""Steps of attacks that take several: from the second on, all of an optimiser's state is there."""


def needs_of_measuring(base: Base, view: SearchView, risk: str, measurement: Measurement, free: float) -> MemoryNeeds:
    """What measuring one risk needs, of the longest queries that go through the model together.

    base: a model without values, on the meta device. free: bytes that the device would have left at its peak use so far, which
    decides what attacks keep on the host. All but weights and base copy counts as activations.
    """
    measurement = replace(measurement, attacks=tuple(map(_shortened, measurement.attacks)))
    queries = {risk: _longest(base, view, view.queries[risk])}
    tensors = [*base.model.parameters(), *base.model.buffers()]
    copies: Mapping[str, Tensor] = base.trainable.base_values() if isinstance(base.trainable, Full) else {}
    weights, copy = (sum(t.nbytes for t in group) for group in (held(base.model), copies.values()))
    with _without_warnings(), room_on_meta(free), counted([*tensors, *copies.values()]) as allocations:
        made = probes(base, queries, {risk: measurement}, view)
        allocations.reset_peak()
        measured(base, made)
    return MemoryNeeds(weights, copy, 0, 0, max(0, allocations.peak - weights - copy))


def _shortened(attack: Attack) -> Attack:
    changes: dict[str, Any] = {
        field.name: min(getattr(attack, field.name), STEPS) for field in fields(attack) if field.name == "steps"
    }
    return replace(attack, **changes)


def _longest(base: Base, view: SearchView, queries: tuple[Query, ...]) -> tuple[Query, ...]:
    """As many as a pass holds, in their order."""
    encoded = encode(base.tokenizer, [query.row for query in queries], view.template)
    kept = sorted(range(len(queries)), key=lambda place: -len(encoded[place].ids))[:BATCH_ROWS]
    return tuple(queries[place] for place in sorted(kept))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Generation warns of tokens that have no values."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
