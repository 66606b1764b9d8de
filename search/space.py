"""Method fields -> Optuna suggestions. Each method has its own conditional subspace, named `method.field`."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from froc.data import SearchView
from froc.errors import InputError
from froc.methods import Method
from froc.params import Choice, Range, Space, spaces
from froc.plugins import find, names

Spaces = Mapping[str, Mapping[str, Space]]


def choose(wanted: Sequence[str], view: SearchView) -> tuple[list[str], list[str]]:
    """Methods to search and a note for each that is left out because the task lacks rows it trains on.

    `all` (or nothing) means every method there is; a method named by the user must fit.
    """
    everything = not wanted or list(wanted) == ["all"]
    chosen, notes = [], []
    for name in names(Method) if everything else dict.fromkeys(n.replace("-", "_") for n in wanted):
        roles = find(Method, name).roles()
        if "refusal" in roles and not (view.refusals and all(row.question for row in view.forget)):
            reason = f"{name} needs refusals (idk.txt in the task folder) and forget rows with questions"
            if not everything:
                raise InputError(f"{reason}; add them or leave the method out")
            notes.append(f"left out: {reason}")
            continue
        chosen.append(name)
    return chosen, notes


def build(
    methods: Sequence[str], task: Mapping[str, tuple[float, float]], user: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, Space]]:
    """The space of every method: its own ranges, narrowed by the task's, those overruled by the user's.

    Keys of `task` and `user` are `field` or `method.field`. Raises InputError for a key that no method has.
    """
    made: dict[str, dict[str, Space]] = {name: dict(spaces(find(Method, name))) for name in methods}
    for source in (task, user):
        for key, (low, high) in source.items():
            _narrow(made, key, low, high)
    return made


def suggest(trial: optuna.Trial, space: Spaces) -> tuple[str, dict[str, Any]]:
    """Draw (method, params) for a trial."""
    method = str(trial.suggest_categorical("method", list(space)))
    params: dict[str, Any] = {}
    for name, what in space[method].items():
        label = f"{method}.{name}"
        if isinstance(what, Choice):
            params[name] = trial.suggest_categorical(label, list(what.options))
        elif what.integer:
            params[name] = trial.suggest_int(label, int(what.low), int(what.high), log=what.log)
        else:
            params[name] = trial.suggest_float(label, what.low, what.high, log=what.log)
    return method, params


def written(space: Spaces) -> dict[str, dict[str, str]]:
    """The space as text, for the plan."""
    return {method: {name: str(what) for name, what in fields.items()} for method, fields in space.items()}


def _narrow(made: dict[str, dict[str, Space]], key: str, low: float, high: float) -> None:
    only, _, name = key.rpartition(".")
    targets = [fields for method, fields in made.items() if name in fields and (not only or only == method)]
    if not targets:
        known = ", ".join(sorted({name for fields in made.values() for name in fields}))
        raise InputError(f"no method searched here has a hyperparameter {key!r}; there are: {known}")
    for fields in targets:
        old = fields[name]
        if not isinstance(old, Range) or not low <= high or (old.log and low <= 0):
            raise InputError(
                f"{key}={low:g}:{high:g} is no range; give LOW:HIGH with LOW <= HIGH (above 0 on a log scale)"
            )
        fields[name] = Range(int(low), int(high)) if old.integer else Range(low, high, old.log)
