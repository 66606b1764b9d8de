"""Which methods, and which of their configurations, train something that `--train` lets move: known before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from froc.errors import FrocError, InputError
from froc.hyperparameters import Range, Space
from froc.models.base import Base
from froc.models.trainable import Full
from froc.plugins import find
from froc.search.optuna.space import Spaces, group
from froc.training.base_statistics import MethodContext
from froc.training.method import Method

POINTS = 49
"""Values of a range that are tried."""


class _InputsReachedError(Exception):
    """A method asks the base model where to train: what it will train is not known yet."""


def fitting(
    space: Spaces, base: Base, words: Sequence[str], train: str
) -> tuple[dict[str, dict[str, Space]], list[str]]:
    """The space without methods and values that train nothing, and a note for each; InputError for a method that the user named.

    words: as the user names methods, families and all. train: what may move, as the user says it.
    """
    fits = _Fits(base)
    fitted: dict[str, dict[str, Space]] = {}
    notes: list[str] = []
    for name, fields in space.items():
        narrowed = fits.narrowed(name, fields)
        why = f"{name} trains other parameters than --train {train} lets move"
        if narrowed is None and not any(name in group(word) for word in words or ("standard",)):
            raise InputError(f"{why}; leave the method out, or take another --train")
        if narrowed is None:
            notes.append(f"left out: {why}")
            continue
        notes += [
            f"{name}: {field} from {narrowed[field]} alone, since other values train what --train {train} does not let move"
            for field in fields
            if narrowed[field] != fields[field]
        ]
        fitted[name] = narrowed
    if not fitted:
        raise InputError(f"no method is left that trains what --train {train} lets move; take another --train")
    return fitted, notes


def inside(method: str, fields: Mapping[str, Space]) -> dict[str, Any]:
    """Values for the hyperparameters whose default lies outside of the space: the nearest end."""
    made, near = find(Method, method)(), {}
    for name, space in fields.items():
        value = getattr(made, name)
        if isinstance(space, Range) and name != "lr" and not space.low <= value <= space.high:
            near[name] = min(max(value, space.low), space.high)
    return near


class _Fits:
    def __init__(self, base: Base) -> None:
        config: Any = base.model.config.get_text_config()
        self._names = [base.trainable.base_name(name) for name in base.trainable.parameters()]
        self._context = MethodContext(
            int(config.num_hidden_layers), int(config.hidden_size), 0, not isinstance(base.trainable, Full), _ask
        )

    def narrowed(self, method: str, fields: Mapping[str, Space]) -> dict[str, Space] | None:
        """The fields with ranges in which the method trains something; None where it does so nowhere."""
        start = inside(method, fields)
        if self._train(method, start):
            # what fits by its default may still not fit at the range's ends
            return {name: self._range(method, start, name, space) or space for name, space in fields.items()}
        for name, space in fields.items():
            range_ = self._range(method, start, name, space)
            if range_ is not None:
                return {**fields, name: range_}
        return None

    def _range(self, method: str, start: Mapping[str, Any], name: str, space: Space) -> Range | None:
        """The part of a field's range that fits, the others being as in `start`; None for no part, and for what is no such range."""
        if not isinstance(space, Range) or space.log or space.integer:
            return None
        tried = np.linspace(space.low, space.high, POINTS)
        able = [float(value) for value in tried if self._train(method, {**start, name: float(value)})]
        if not able or len(able) == POINTS:
            return None
        return replace(space, low=round(able[0], 4), high=round(able[-1], 4))

    def _train(self, method: str, params: Mapping[str, Any]) -> bool:
        try:
            phases = find(Method, method)(**params).phases(self._context)
        except (_InputsReachedError, FrocError):
            # it is known, or refused with its own reason, when its first trial begins
            return True
        return all(any(phase.matches(name) for name in self._names) for phase in phases)


def _ask(_query: Any) -> Any:
    raise _InputsReachedError
