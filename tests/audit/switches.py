"""Every check of the audit room with a switch: a copy of its modules in which single refusals can be turned off.

A check is a place that raises VerificationError, together with a code that it raises. The copy is made from the source:
`raise VerificationError(code, ...)` becomes `raise ... unless (place, code) is switched off`.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import froc
import froc.audit

ROOM = Path(__file__).resolve().parents[2] / "audit"
Check = tuple[str, str]
"""Module and function of a refusal with its number in it, such as `records._read.1`; and the code."""


@dataclass
class Switched:
    """The copy. checks: all of them, codes that are computed as their expression. off: what is turned off now.

    raised: the last refusal that was met.
    """

    verification: ModuleType
    checks: dict[str, str | None]
    off: set[Check] = field(default_factory=set)
    raised: list[Check] = field(default_factory=list)

    @contextmanager
    def without(self, check: Check) -> Iterator[None]:
        """Turn one check off."""
        self.off.add(check)
        try:
            yield
        finally:
            self.off.discard(check)


class _Switch(ast.NodeTransformer):
    """Number the refusals of a module and give each a switch."""

    def __init__(self, module: str, checks: dict[str, str | None]) -> None:
        self.module, self.checks, self.inside = module, checks, [module]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:  # ast's name
        return self._inside_of(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._inside_of(node)

    def _inside_of(self, node: ast.FunctionDef | ast.ClassDef) -> Any:
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()
        return node

    def visit_Raise(self, node: ast.Raise) -> Any:
        call = node.exc
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "VerificationError"):
            return node
        function = ".".join(self.inside)
        place = f"{function}.{1 + sum(name.rpartition('.')[0] == function for name in self.checks)}"
        code = call.args[0]
        self.checks[place] = str(code.value) if isinstance(code, ast.Constant) else None
        made = ast.parse(f"_fault = None\nif _switched({place!r}, _fault):\n    raise _fault").body
        assert isinstance(made[0], ast.Assign)
        assert isinstance(made[1], ast.If)
        assert isinstance(made[1].body[0], ast.Raise)
        made[0].value, made[1].body[0].cause = call, node.cause
        return [ast.copy_location(statement, node) for statement in made]


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, made: Switched) -> None:
        super().__init__(name, path)
        self.made = made

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(Path(self.path).read_text(encoding="utf-8"))
        tree = _Switch(fullname.removeprefix("froc.audit."), self.made.checks).visit(tree)
        return compile(ast.fix_missing_locations(tree), self.path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        def switched(place: str, fault: Any) -> bool:
            if (place, fault.check) in self.made.off:
                return False
            self.made.raised[:] = [(place, fault.check)]
            return True

        module.__dict__["_switched"] = switched
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, made: Switched) -> None:
        self.made = made

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        place = ROOM / f"{fullname.removeprefix('froc.audit.')}.py"
        if not fullname.startswith("froc.audit.") or not place.is_file():
            return None
        return spec_from_file_location(fullname, place, loader=_Loader(fullname, str(place), self.made))


def listed() -> dict[str, str | None]:
    """Place -> code of every refusal, None where it is computed; read from the source, nothing is run."""
    checks: dict[str, str | None] = {}
    for path in sorted(ROOM.glob("*.py")):
        _Switch(path.stem, checks).visit(ast.parse(path.read_text(encoding="utf-8")))
    return checks


def switched() -> Switched:
    """A fresh copy with every check on; the modules that others have imported stay as they are."""
    made = Switched(ModuleType("none"), {})
    package = froc.audit
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if (name + ".").startswith("froc.audit.")}
    finder = _Finder(made)
    sys.meta_path.insert(0, finder)
    try:
        made.verification = importlib.import_module("froc.audit.verification")
        for path in ROOM.glob("*.py"):
            importlib.import_module("froc.audit" if path.stem == "__init__" else f"froc.audit.{path.stem}")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if (name + ".").startswith("froc.audit.")]:
            del sys.modules[name]
        sys.modules.update(kept)
        froc.audit = package
    return made
