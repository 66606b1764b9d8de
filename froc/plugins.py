"""Plug-ins by name: a file in a folder such as `froc/methods/npo.py` is the method `npo`.

Other packages add plug-ins through the entry point groups `froc.methods`, `froc.metrics`, ... Names that are taken, by
froc or by another package, are refused, as it would be ambiguous whose code runs. The plug-in class is the one concrete
subclass that a file defines.
"""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from froc.errors import InputError
from froc.hyperparameters import check

T = TypeVar("T")


_BUILTIN_ONLY: ContextVar[bool] = ContextVar("builtin_plugins_only", default=False)


@contextmanager
def builtin_plugins_only() -> Iterator[None]:
    """Context manager: plug-ins of other packages are ignored, as verification must not run code that they installed."""
    token = _BUILTIN_ONLY.set(True)
    try:
        yield
    finally:
        _BUILTIN_ONLY.reset(token)


@cache
def _outside(group: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Name -> entry point of other packages' plug-ins in a group. path: sys.path, which the cache depends on.

    Raises InputError for a name that froc or another package has already.
    """
    owners = {_bare(name): "froc itself" for name in builtin_names(group)}
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        owner = point.dist.name if point.dist else point.value
        first = owners.setdefault(_bare(point.name), owner)
        if first != owner or point.name in points:
            raise InputError(
                f"the package {owner} calls a plug-in of {group} {point.name!r}, which {first} has already; "
                f"rename it there, or pip uninstall {owner}"
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", point.name):
            raise InputError(
                f"the package {owner} calls a plug-in of {group} {point.name!r}; names are lower-case letters, digits and underscores: "
                f"rename it there, or pip uninstall {owner}"
            )
        points[point.name] = point
    return points


@cache
def builtin_names(group: str) -> frozenset[str]:
    """Names of froc's own plug-ins of a kind: the files of its folder."""
    package = importlib.import_module(group)
    return frozenset(item.name for item in pkgutil.iter_modules(package.__path__) if not item.name.startswith("_"))


def entry_point(group: str, name: str) -> EntryPoint | None:
    """Where another package has a plug-in; None for froc's own and for unknown names."""
    return None if _BUILTIN_ONLY.get() else _outside(group, tuple(sys.path)).get(name)


def outside_names(kind_group: str) -> list[str]:
    """Names of the plug-ins of a group that other packages bring, sorted."""
    return [] if _BUILTIN_ONLY.get() else sorted(_outside(kind_group, tuple(sys.path)))


def group(base: type) -> str:
    """The package that holds the plug-ins of a kind, which is also the name of its entry point group."""
    return str(getattr(base, "plugin_group", base.__module__))


def names(base: type) -> list[str]:
    """All plug-in names of a kind, sorted; nothing is imported to find them."""
    return sorted(_known(group(base)))


def _known(kind_group: str) -> dict[str, EntryPoint | None]:
    """Name -> where another package has it, None for ours."""
    others = {name: entry_point(kind_group, name) for name in outside_names(kind_group)}
    return {**dict.fromkeys(sorted(builtin_names(kind_group))), **others}


def known_name(kind_group: str, name: str) -> str:
    """The name of a plug-in in its canonical form, without importing it; InputError with the most similar one where there is none.

    kind_group: the package that holds the plug-ins, such as `froc.methods`. Of a composed name, `gu(npo)`, every part must be known.
    """
    outer, bracket, rest = name.strip().partition("(")
    if bracket:
        if not rest.endswith(")"):
            raise InputError(f"{name} is not understood; brackets are for methods, such as gu(npo)")
        return f"{known_name(kind_group, outer)}({known_name(kind_group, rest.removesuffix(')'))})"
    kind, known = kind_group.rpartition(".")[2], _known(kind_group)
    canonical = _among(known, outer)
    if canonical not in known:
        near = difflib.get_close_matches(canonical, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
        raise InputError(f"no {kind.rstrip('s')} is called {canonical!r}; {hint} (froc list {kind})")
    return canonical


def find(base: type[T], name: str) -> type[T]:
    """The plug-in class called `name`; InputError with the most similar name where there is none."""
    outer, bracket, rest = name.partition("(")
    if bracket:
        return _composed(base, outer, rest)
    name = known_name(group(base), name)
    outside = entry_point(group(base), name)
    if outside is not None:
        loaded: type[T] = outside.load()
        return loaded
    module = importlib.import_module(f"{group(base)}.{name}")
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item)
        and issubclass(item, base)
        and item.__module__ == module.__name__
        and not inspect.isabstract(item)
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {base.__name__}, it defines {len(classes)}")
    return classes[0]


def name_of(plugin: object) -> str:
    """The name by which `find` returns a plug-in's class: its file's, or that of another package's entry point."""
    kind = type(plugin)
    package, _, name = kind.__module__.rpartition(".")
    if package.startswith("froc.") and kind.__module__ in sys.modules and name in builtin_names(package):
        return name
    groups = {
        group(base) for base in kind.__mro__[1:] if base.__module__.startswith("froc.") and inspect.isabstract(base)
    }
    for kind_group in groups:
        for point in _outside(kind_group, tuple(sys.path)).values():
            if point.value.replace(" ", "") == f"{kind.__module__}:{kind.__qualname__}":
                return point.name
    return name


def canonical_name(base: type, name: str) -> str:
    """The canonical form of a name: graddiff, GradDiff and grad-diff are grad_diff. Unknown names are returned unchanged."""
    outer, bracket, rest = name.strip().partition("(")
    if bracket:
        return f"{canonical_name(base, outer)}({canonical_name(base, rest.removesuffix(')'))})"
    return _among(_known(group(base)), outer)


def _among(known: Iterable[str], name: str) -> str:
    alike = {_bare(candidate): candidate for candidate in known}
    return alike.get(_bare(name), name.replace("-", "_"))


def _bare(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _composed(base: type[T], outer: str, rest: str) -> type[T]:
    """A plug-in that wraps another, by the outer class's `around`."""
    around: Any = getattr(find(base, outer), "around", None)
    if around is None or not rest.endswith(")"):
        raise InputError(f"{outer}({rest} is not understood; brackets are for methods, such as gu(npo)")
    plugin: type[T] = around(find(base, rest.removesuffix(")")))
    return plugin


def make(base: type[T], name: str, params: Mapping[str, Any] | None = None) -> T:
    """The plug-in `name` built with `params`; unknown names and values out of range are InputErrors."""
    kind: Any = find(base, name)
    known = {f.name for f in dataclasses.fields(kind)}
    for key in params or {}:
        if key not in known:
            raise InputError(f"{name} has no hyperparameter {key!r}; it has: {', '.join(sorted(known))}")
    plugin: T = kind(**(params or {}))
    check(plugin)
    return plugin


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """`name:key=value,key=value` -> name and settings; numbers become numbers. InputError for another shape.

    >>> parse("quantization:bits=8,scheme=rtn")
    ('quantization', {'bits': 8, 'scheme': 'rtn'})
    """
    name, _, rest = text.partition(":")
    params: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"{text!r}: {word!r} is no setting; write {name}:KEY=VALUE")
        params[key.strip()] = _number(value.strip())
    return name, params


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def summary(plugin: type) -> str:
    """First line of a plug-in's docstring."""
    return (inspect.getdoc(plugin) or "").partition("\n")[0]
