"""What plug-ins say of themselves, read from their source: no plug-in is imported, so no library that it needs is. Torch-free."""

import ast
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path

from froc import plugins


@dataclass(frozen=True)
class Description:
    """A plug-in without its code: its name, the family that it is searched under, and the first line of its docstring."""

    name: str
    family: str
    summary: str


def descriptions(kind_group: str) -> list[Description]:
    """Every plug-in of a group whose classes name their family, such as `froc.methods`, sorted by name.

    Those of other packages are imported: their source may lie anywhere.
    """
    package = Path(str(importlib.import_module(kind_group).__file__)).parent
    own = [_described(package / f"{name}.py") for name in plugins.builtin_names(kind_group)]
    others = [
        Description(name, getattr(loaded, "family", ""), plugins.summary(loaded))
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
    """Of the class in a file that assigns `family`; TypeError where not exactly one does."""
    classes = [node for node in ast.parse(source.read_bytes()).body if isinstance(node, ast.ClassDef)]
    families = [(node, family) for node in classes if (family := _family(node)) is not None]
    if len(families) != 1:
        raise TypeError(f"{source.name} must have one class with a family, it has {len(families)}")
    node, family = families[0]
    return Description(source.stem, family, inspect.cleandoc(ast.get_docstring(node) or "").partition("\n")[0])


def _family(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and target.id == "family" and isinstance(value, ast.Constant):
            return str(value.value)
    return None
