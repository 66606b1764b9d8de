"""Which test files are about a module: what they import and name, without running anything."""

import ast
import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path

ROOMS = ("froc", "search", "audit", "cli")
"""Folders of the code, as they lie in the tree."""


class Tests:
    """The test files of a tree and the modules that they reach."""

    __test__ = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts = {
            path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(root.glob("tests/**/*.py"))
        }
        self.imports = {file: _imported(text, _dotted(file)) for file, text in self.texts.items()}

    def of(self, module: str, line: int = 1) -> list[str]:
        """Test files of a module (its path), nearest first: of its name, that import it, that name the plug-in, that reach it, its folder's.

        Of equally near ones, those come first that name the function or class around the line, then the smallest.
        """
        around = self._definition(module, line)
        files = [file for file in self.texts if Path(file).name.startswith("test_")]
        ranked = [
            (
                self._rank(file, module),
                around is None or not around.search(self.texts[file]),
                len(self.texts[file]),
                file,
            )
            for file in files
        ]
        return [file for rank, _, _, file in sorted(ranked) if rank < 9]

    def _definition(self, module: str, line: int) -> re.Pattern[str] | None:
        """Finds the name of what is defined around a line of a module."""
        for node in ast.parse((self.root / module).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= line <= (node.end_lineno or line):
                return re.compile(rf"\b{re.escape(node.name)}\b")
        return None

    def _rank(self, file: str, module: str) -> int:
        names, stem = _names(module), Path(module).stem.strip("_")
        parents = {name.rpartition(".")[0] for name in names} - set(ROOMS)
        direct, package, test = self.imports[file], Path(module).parent.name, Path(file)
        in_its_folder = package not in ROOMS and test.parent.name == package
        own = in_its_folder or (package not in ROOMS and package in test.stem) or (stem != "init" and stem in test.stem)
        if test.stem == f"test_{stem}" and (in_its_folder or direct & names):
            return 0
        if direct & names:
            return 1 if own else 2
        if own and direct & parents:
            return 2  # a suite that goes through every plug-in of a package by its name
        nearby = in_its_folder or any(name.startswith(f"{parent}.") for name in direct for parent in parents)
        word = re.compile(rf"\b{re.escape(stem).replace('_', '[-_]')}\b")
        if stem != "init" and (nearby or direct & parents) and word.search(self.texts[file]):
            return 3
        if self._of_helpers(file) & names:
            return 4
        if direct & self._importers(names):
            return 5
        return 6 if in_its_folder or direct & parents else 9

    def _of_helpers(self, file: str) -> set[str]:
        """What the test's helpers import: modules of tests that it imports, and the conftest files around it."""
        around = [f"{parent.as_posix()}/conftest.py" for parent in Path(file).parents]
        helpers = {name.replace(".", "/") + ".py" for name in self.imports[file]} | set(around)
        return set().union(*(self.imports[helper] for helper in helpers & set(self.imports)))

    def _importers(self, names: set[str]) -> set[str]:
        """Modules of the code that import one of these."""
        return {importer for name in names for importer in self._users[name]}

    @cached_property
    def _users(self) -> dict[str, set[str]]:
        users = defaultdict[str, set[str]](set)
        for room in ROOMS:
            for path in sorted((self.root / room).rglob("*.py")):
                file = path.relative_to(self.root).as_posix()
                for name in _imported(path.read_text(encoding="utf-8"), _dotted(file)):
                    users[name] |= _names(file)
        return users


def _dotted(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _names(file: str) -> set[str]:
    """What a module is imported as; a room may also be a part of the first one."""
    name = _dotted(file)
    return {name} if name.startswith(f"{ROOMS[0]}.") else {name, f"{ROOMS[0]}.{name}"}


def _imported(text: str, own: str) -> set[str]:
    """Dotted names of modules, and of what is taken from them (which may be a module)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names - {own}
