"""Descriptions of plug-ins, read from their source without importing them or the libraries that they need. Torch-free."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from froc import fidelity, plugins


@dataclass(frozen=True)
class Description:
    """Name, family, fidelity to its paper (`froc.fidelity`) and summary (first line of the docstring) of a plug-in."""

    name: str
    family: str
    fidelity: str
    summary: str


def descriptions(kind_group: str) -> list[Description]:
    """The plug-ins of a group whose classes have a `family`, such as `froc.methods`, sorted by name.

    Those of other packages are imported, since their source may be anywhere.
    """
    package = Path(str(importlib.import_module(kind_group).__file__)).parent
    own = [_described(package / f"{name}.py") for name in plugins.builtin_names(kind_group)]
    others = [
        Description(name, getattr(loaded, "family", ""), fidelity.of(loaded), plugins.summary(loaded))
        for name in plugins.outside_names(kind_group)
        for loaded in [_loaded(kind_group, name)]
    ]
    return sorted((*own, *others), key=lambda description: description.name)


def _loaded(kind_group: str, name: str) -> type:
    point = plugins.entry_point(kind_group, name)
    assert point is not None
    plugin: type = point.load()
    return plugin


def _described(source: Path) -> Description:
    """The description of the single class in a file that assigns `family`; TypeError where there is not exactly one."""
    classes = [node for node in ast.parse(source.read_bytes()).body if isinstance(node, ast.ClassDef)]
    families = [(node, family) for node in classes if (family := _constant(node, "family")) is not None]
    if len(families) != 1:
        raise TypeError(f"{source.name} must have one class with a family, it has {len(families)}")
    node, family = families[0]
    summary = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n")[0]
    return Description(source.stem, family, _constant(node, "fidelity") or "reading", summary)


def _constant(node: ast.ClassDef, name: str) -> str | None:
    """What a class assigns to a name as a constant; None where it does not."""
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(value, ast.Constant):
            return str(value.value)
    return None


@cache
def settings(kind_group: str, name: str) -> frozenset[str] | None:
    """Names of the settings of a plug-in of froc's own, inherited ones too; None for other names."""
    if name not in plugins.builtin_names(kind_group):
        return None
    return frozenset(_fields(kind_group, name, None))


def _fields(kind_group: str, module: str, wanted: set[str] | None) -> Iterator[str]:
    """Fields of the classes of a module of the group's folder, and of their bases beside it. wanted: of these classes; None: of all."""
    source = Path(str(importlib.import_module(kind_group).__file__)).parent / f"{module}.py"
    body = ast.parse(source.read_bytes()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and (wanted is None or node.name in wanted)]
    fields = [statement for node in classes for statement in node.body if isinstance(statement, ast.AnnAssign)]
    yield from (ast.unparse(field.target) for field in fields if "ClassVar" not in ast.unparse(field.annotation))
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    for node in body:
        group, _, beside = str(getattr(node, "module", "")).rpartition(".")
        if isinstance(node, ast.ImportFrom) and group == kind_group:
            yield from _fields(kind_group, beside, bases & {alias.name for alias in node.names})
