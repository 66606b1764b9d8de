"""Method fields -> Optuna suggestions. Each method has its own conditional subspace, named `method.field`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from froc.data.splits import SearchView
from froc.errors import InputError
from froc.hyperparameters import Choice, Range, Space, spaces
from froc.plugin_source import descriptions
from froc.plugins import canonical_name, find, known_name, names

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from froc.training.method import Method

Spaces = Mapping[str, Mapping[str, Space]]
UserDomain = tuple[float, float] | list[str]
"""A range's ends, or values one by one."""


STANDARD = "standard"
MIDDLE = 0.5
STRONG = 0.75
"""Share of a range at which a first configuration begins, without and with stops and mixes to weaken it."""
STRENGTH = ("lr", "epochs")
"""Hyperparameters by which training goes farther from the base model."""


def choose(wanted: Sequence[str], view: SearchView) -> tuple[list[str], list[str]]:
    """Methods to search and a note for each that is left out because the task lacks what it needs.

    A word is a method (`npo`, `gu(npo)`), a family (`preference`), `standard` (also where nothing is said: those that a search
    tries unasked) or `all`, every method that stands by itself but `compose` and the controls. A method named by the user must fit.
    """
    chosen: dict[str, None] = {}
    notes: dict[str, None] = {}
    for word in wanted or (STANDARD,):
        members = group(word)
        for name in members or [canonical_name(_contract(), word)]:
            reason = _lacks(name, view)
            if reason is None:
                chosen[name] = None
            elif members:
                notes[f"left out: {reason}"] = None
            else:
                raise InputError(f"{reason}; add them or leave the method out")
    return list(chosen), list(notes)


def refuse_unknown(words: Sequence[str]) -> None:
    """InputError for a word that stands for no method and no family; torch is not imported."""
    families = {description.family for description in descriptions("froc.methods")}
    for word in words:
        if word not in (STANDARD, "all", *families):
            known_name("froc.methods", word)


def _contract() -> "type[Method]":
    from froc.training.method import Method

    return Method


def group(word: str) -> list[str]:
    """Methods that a word stands for together; none where it is no such word."""
    from froc.training.method import Wrapper

    plain = {name: find(_contract(), name) for name in names(_contract())}
    plain = {name: method for name, method in plain.items() if not issubclass(method, Wrapper)}
    if word == STANDARD:
        return [name for name, method in plain.items() if method.standard]
    if word == "all":
        return [name for name, method in plain.items() if method.family not in ("control", "composition")]
    return [name for name, method in plain.items() if method.family == word]


def _lacks(name: str, view: SearchView) -> str | None:
    """What a method needs and the task lacks."""
    method = find(_contract(), name)
    roles = method.roles()
    if method.loads_retrained and view.retrained is None:
        return f"{name} needs a model trained without the forget rows, which the embedded task brings (or retrained = in task.toml)"
    have_questions = all(row.question for row in view.forget)
    if "refusal" in roles and not (view.refusals and have_questions):
        return f"{name} needs refusals (idk.txt in the task folder) and forget rows with questions"
    if any(source.needs_questions for source in method.sources().values()) and not have_questions:
        return f"{name} needs forget rows with questions, for which it writes other answers"
    if "retain" in roles and not view.retain:
        return f"{name} needs retain rows"
    return None


def build(
    methods: Sequence[str], task: Mapping[str, tuple[float, float]], user: Mapping[str, UserDomain]
) -> dict[str, dict[str, Space]]:
    """The space of every method: its own ranges, narrowed by the task's, those overruled by the user's.

    A task's learning rates are multiplied by each method's pace. Keys of `task` and `user` are `field` or `method.field`.
    Raises InputError for a key that no method has.
    """
    made: dict[str, dict[str, Space]] = {name: dict(spaces(find(_contract(), name))) for name in methods}
    sources: tuple[Mapping[str, UserDomain], ...] = (dict(task), user)
    for source in sources:
        for key, limits in source.items():
            # a task speaks to all methods, also to those that are not searched now
            if source is user or _targets(made, key) or not _known(key):
                _narrow(made, key, limits)
                if key == "lr" and source is not user:
                    _pace(made)
    return made


def _targets(made: Mapping[str, dict[str, Space]], key: str) -> list[dict[str, Space]]:
    """Spaces of the methods that a key speaks to."""
    only, _, name = key.rpartition(".")
    return [fields for method, fields in made.items() if name in fields and (not only or only == method)]


def _known(key: str) -> bool:
    """Whether any method, searched or not, has the hyperparameter that a key names."""
    only, _, name = key.rpartition(".")
    return any(name in spaces(find(_contract(), method)) for method in ([only] if only else names(_contract())))


def _pace(made: dict[str, dict[str, Space]]) -> None:
    """Multiply learning rates of the task by each method's own factor: task ranges assume that all parameters train."""
    for name, fields in made.items():
        pace, rate = find(_contract(), name).lr_multiplier, fields.get("lr")
        if isinstance(rate, Range):
            fields["lr"] = replace(rate, low=pace * rate.low, high=pace * rate.high)


def suggest(trial: "BaseTrial", space: Spaces) -> tuple[str, dict[str, Any]]:
    """Draw (method, params) for a trial."""
    method = str(trial.suggest_categorical("method", list(space)))
    params: dict[str, Any] = {}
    for name, field_space in space[method].items():
        label = f"{method}.{name}"
        if not field_space.meant(params):
            continue
        if isinstance(field_space, Choice):
            params[name] = trial.suggest_categorical(label, list(field_space.options))
        elif field_space.integer:
            params[name] = trial.suggest_int(label, int(field_space.low), int(field_space.high), log=field_space.log)
        else:
            params[name] = trial.suggest_float(label, field_space.low, field_space.high, log=field_space.log)
    return method, params


def first_configs(fields: Mapping[str, Space], count: int, seed: int, *, swept: bool = False) -> list[dict[str, Any]]:
    """A first configuration, then those that cover a method's space evenly (scrambled Sobol); `count` in all.

    The first is the middle; where trials are swept, with learning rate and epochs at three quarters of their ranges: weaker
    versions, by earlier stops and mixes, cost no training, and stronger ones cannot be had.
    """
    share = dict.fromkeys(STRENGTH, STRONG if swept else MIDDLE)
    first = {name: _at(field_space, share.get(name, MIDDLE)) for name, field_space in fields.items()}
    # a Sobol sequence is balanced for powers of two only
    return [first, *_sobol_configs(fields, count, seed)[: count - 1]]


def _sobol_configs(fields: Mapping[str, Space], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` configurations that cover a method's space evenly, options of a choice in turn."""
    # slow to import, and words are checked without them
    import numpy as np
    from scipy.stats.qmc import Sobol

    points = Sobol(max(1, len(fields)), rng=np.random.default_rng(seed)).random(count)
    return [
        {name: _at(field_space, float(u)) for (name, field_space), u in zip(fields.items(), row, strict=False)}
        for row in points
    ]


def _at(field_space: Space, share: float) -> Any:
    """The value at a share in [0, 1) of a space; listed numbers count by size, in whatever order they were listed."""
    if isinstance(field_space, Choice):
        options = field_space.options
        numbers = all(isinstance(option, (int, float)) for option in options)
        return (sorted(options) if numbers else options)[int(share * len(options))]
    if field_space.integer:
        return int(field_space.low) + int(share * (int(field_space.high) - int(field_space.low) + 1))
    if field_space.log:
        return min(
            field_space.high, max(field_space.low, field_space.low * (field_space.high / field_space.low) ** share)
        )
    return field_space.low + share * (field_space.high - field_space.low)


def written(space: Spaces) -> dict[str, dict[str, str]]:
    """The space as text, for the plan."""
    return {
        method: {name: str(field_space) for name, field_space in fields.items()} for method, fields in space.items()
    }


def size(space: Spaces) -> int:
    """How many configurations a grid has; InputError for a hyperparameter that is not listed value by value.

    One that is drawn only beside some values of others counts beside these alone.
    """
    loose: dict[str, None] = {}
    total = sum(_drawable(method, fields, list(fields), {}, loose) for method, fields in space.items())
    if loose:
        first = next(iter(loose))
        raise InputError(f"a grid needs values for {', '.join(loose)}, such as --space {first}=A,B,C")
    return total


def _drawable(
    method: str, fields: Mapping[str, Space], names: Sequence[str], drawn: dict[str, Any], loose: dict[str, None]
) -> int:
    """Combinations of what is yet to be drawn, beside what others wait for; `loose` gathers what has no list."""
    if not names:
        return 1
    name, rest = names[0], names[1:]
    field_space = fields[name]
    if not field_space.meant(drawn):
        return _drawable(method, fields, rest, drawn, loose)
    values = _values(field_space)
    if values is None:
        loose[f"{method}.{name}"] = None
        values = (None,)
    if any(name in sibling.when for sibling in fields.values()):
        return sum(_drawable(method, fields, rest, {**drawn, name: value}, loose) for value in values)
    return len(values) * _drawable(method, fields, rest, drawn, loose)


def _values(field_space: Space) -> Sequence[Any] | None:
    if isinstance(field_space, Choice):
        return field_space.options
    return range(int(field_space.low), int(field_space.high) + 1) if field_space.integer else None


def _narrow(made: dict[str, dict[str, Space]], key: str, limits: UserDomain) -> None:
    name = key.rpartition(".")[2]
    targets = _targets(made, key)
    if not targets:
        known = ", ".join(sorted({name for fields in made.values() for name in fields}))
        raise InputError(f"no method searched here has a hyperparameter {key!r}; there are: {known}")
    for fields in targets:
        old = fields[name]
        new = _listed(key, limits, old) if isinstance(limits, list) else _range(key, limits, old)
        fields[name] = replace(new, when=old.when)


def _range(key: str, limits: tuple[float, float], old: Space) -> Space:
    low, high = limits
    if not isinstance(old, Range) or not low <= high or (old.log and low <= 0):
        raise InputError(f"{key}={low:g}:{high:g} is no range; give LOW:HIGH with LOW <= HIGH (above 0 on a log scale)")
    return Range(int(low), int(high)) if old.integer else Range(low, high, old.log)


def _listed(key: str, listed: Sequence[str], old: Space) -> Space:
    if isinstance(old, Choice):
        known = {str(option): option for option in old.options}
        unknown = [value for value in listed if value not in known]
        if unknown:
            raise InputError(f"{key}={unknown[0]} makes no sense; it is one of {', '.join(known)}")
        return Choice(tuple(known[value] for value in dict.fromkeys(listed)))
    try:
        values = [int(value) if old.integer else float(value) for value in listed]
    except ValueError:
        raise InputError(f"{key}={','.join(listed)} is no list of numbers that this hyperparameter takes") from None
    if old.log and min(values) <= 0:
        raise InputError(f"{key}={min(values):g} is not above 0, as it must be on a log scale")
    return Choice(tuple(dict.fromkeys(values)))


def pick(kind: str, table: Mapping[str, Any], name: str) -> Any:
    """A sampler, pruner or the like by name; InputError where there is none."""
    if name not in table:
        raise InputError(f"no {kind} is called {name!r}; there are: {', '.join(table)}")
    return table[name]
