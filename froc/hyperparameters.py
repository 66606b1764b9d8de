"""Search spaces of hyperparameters, declared beside their defaults.

A plug-in is a frozen dataclass; its fields are its hyperparameters::

    @dataclass(frozen=True)
    class NPO(Method):
        beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True))
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from froc.errors import InputError


@dataclass(frozen=True)
class Conditional:
    """when: values of other hyperparameters for which this one has an effect; otherwise it is not drawn."""

    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, kw_only=True, compare=False)

    def meant(self, drawn: Mapping[str, Any]) -> bool:
        """Whether it has an effect given the hyperparameters that were drawn before it."""
        return all(drawn.get(name) in values for name, values in self.when.items())


@dataclass(frozen=True)
class Range(Conditional):
    """Numbers from `low` to `high`, both included; `log` searches the logarithm; integers where both ends are."""

    low: float
    high: float
    log: bool = False

    @property
    def integer(self) -> bool:
        """Whether only whole numbers are allowed."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g}" + (" (log)" if self.log else "")


@dataclass(frozen=True)
class Choice(Conditional):
    """One of the `options`."""

    options: tuple[str | int | float | bool, ...]

    def __str__(self) -> str:
        return " | ".join(str(option) for option in self.options)


Space = Range | Choice


def hyperparameter(default: Any, space: Space, **when: tuple[Any, ...]) -> Any:
    """A dataclass field with its default and the space that a search may draw it from.

    when: values of earlier fields for which this one has an effect.
    """
    return field(default=default, metadata={"space": replace(space, when=when)})


def spaces(plugin: type) -> dict[str, Space]:
    """Name -> space of every searchable field of a plug-in class, in order of declaration."""
    return {f.name: f.metadata["space"] for f in dataclasses.fields(plugin) if "space" in f.metadata}


def check(plugin: object) -> None:
    """Raise InputError for values of a wrong type. A range limits the search only, not values that are given."""
    for name, space in spaces(type(plugin)).items():
        value = getattr(plugin, name)
        if isinstance(space, Choice):
            bad = value not in space.options
        else:
            number = isinstance(value, int | float) and math.isfinite(value)
            bad = not number or (space.log and value <= 0) or (space.integer and value != int(value))
        if bad:
            raise InputError(f"{type(plugin).__name__}: {name} = {value!r} makes no sense; it is searched in {space}")
