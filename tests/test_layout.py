"""The rooms: arrows one way, torch-free where promised, and the command whatever lies around it."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("search", "audit"),
    ("certification", "comparison", "monitoring", "planning"),
    ("formats",),
    ("methods",),
    ("training",),
    ("attacks",),
    ("metrics",),
    ("measuring",),
    ("models",),
    ("reporting",),
    ("risk",),
    ("data",),
    ("procedures",),
    ("bounds",),
    ("loss_table", "provenance", "plugin_source", "plan_identity"),
    ("plugins", "atomic"),
    (
        "hashing",
        "hyperparameters",
        "timestamp",
        "visible",
        "extras",
        "configuration_id",
        "bytecode",
        "bounded_file",
        "fidelity",
    ),
    ("errors", "version"),
)
"""Packages and modules of `froc`; each imports only from floors below its own."""
ENTRANCES = {"froc", "froc.__main__", "froc.search"}
"""Modules whose names are looked up at first use, wherever they stand; `froc` alone is the version and these names."""
TORCH_FREE = (
    "froc.errors", "froc.configuration_id", "froc.hyperparameters", "froc.plugins", "froc.hashing", "froc.loss_table", "froc.data.task", "froc.risk.certificate",
    "froc.risk.positive_control", "froc.risk.requirements", "froc.procedures", "froc.bounds.betting", "froc.bounds.hoeffding_bentkus",
    "froc.models.weights_digest", "froc.methods", "froc.metrics", "froc.attacks", "froc.reporting.landscape", "froc.reporting.bounds",
    "froc.planning.plan", "froc.monitoring.monitor", "froc.comparison.tables", "froc.certification.certify", "froc.formats.table",
    "froc.formats.open_unlearning", "froc.formats.tofu", "froc.formats.lm_eval", "froc.formats.inspect", "froc.data.benchmarks.tofu",
    "froc.data.benchmarks.muse", "froc.data.benchmarks.wmdp", "froc.data.benchmarks.rwku", "froc.data.tasks.embedded_text",
    "froc.audit.api", "froc.audit.bundle", "froc.audit.model_folder", "froc.audit.verification", "froc.audit.exports.svr", "froc.search", "froc.cli.main",
)  # fmt: skip
LONGEST = 350
"""Lines of a file at most."""


def _modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    modules = {}
    for folder in ("froc", "search", "audit", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "froc" else ("froc", *parts)
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def _imports(path: Path, modules: Mapping[str, Path]) -> set[str]:
    """Modules of the package that a file imports anywhere, for type checkers too."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                imported.add(full if full in modules else node.module)
    return imported & set(modules)


MODULES = _modules()


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports; parsed by the tests that need it, and not wherever this file is collected."""
    return {name: _imports(path, MODULES) - {name} for name, path in MODULES.items()}


def eager_graph() -> dict[str, set[str]]:
    """Without imports of the two packages that import their names at first use."""
    return {name: targets - {"froc", "froc.search"} for name, targets in graph().items()}


def _floor(module: str) -> int:
    place = module.split(".")[1]
    return next(number for number, floor in enumerate(FLOORS) if place in floor)


def test_arrows_point_downwards() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if not {module, target} & ENTRANCES
        and module.split(".")[1] != target.split(".")[1]
        and _floor(target) <= _floor(module)
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert len(list(TopologicalSorter(eager_graph()).static_order())) == len(graph())


def test_every_package_says_what_is_in_it() -> None:
    """Its docstring names every module and package of the folder; plug-in folders are their own list."""
    missing = []
    for name, path in MODULES.items():
        if path.name != "__init__.py" or name in PLUGIN_FOLDERS or name == "froc":
            continue
        named = set(re.findall(r"\w+", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""))
        there = {item.stem for item in path.parent.glob("*.py")} | {
            item.parent.name for item in path.parent.glob("*/__init__.py")
        }
        missing += [f"{name}: {item}" for item in sorted(there - named - {"__init__"})]
    assert not missing


PLUGIN_FOLDERS = {
    "froc.methods", "froc.metrics", "froc.attacks", "froc.bounds", "froc.procedures", "froc.formats", "froc.data.benchmarks",
    "froc.audit.exports", "froc.audit.rendering", "froc.cli.audit", "froc.cli.show", "froc.search.executors",
}  # fmt: skip


def test_files_are_short() -> None:
    """A module has one reason to exist; what is longer is split."""
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES.values()
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_torch_free_rooms() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE!r}: importlib.import_module(name)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_top_level_holds_the_rooms_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    folders = {name.partition("/")[0] for name in listed if "/" in name}
    assert (
        {"froc", "search", "audit", "cli"}
        <= folders
        <= {"froc", "search", "audit", "cli", "tests", "docs", "benchmarks", "examples", ".ci"}
    )


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with packages of the rooms' names, which would end the program if imported."""
    for name in ("search", "audit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong room')", encoding="utf-8")
    (tmp_path / "cli.py").write_text("raise SystemExit('the wrong room')", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", [["-m", "froc"], ["-c", "from froc.cli.main import main; main()"]])
@pytest.mark.parametrize("path", ["", "."])
def test_command_works_in_a_crowded_folder(crowded: Path, command: list[str], path: str) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))}
    # a command that imports from the rooms, and nothing slow
    done = subprocess.run(
        [sys.executable, *command, "audit", "keygen", "key"],
        cwd=crowded,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (crowded / "key.pub").is_file()


@pytest.mark.parametrize("words", ["--help", "search --budget 2"])
def test_help_and_wrong_words_are_quick(words: str) -> None:
    """They need no heavy package; the time itself is a benchmark's business."""
    code = (
        f"import sys\nsys.argv = {['froc', *words.split()]}\nfrom froc.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'optuna', 'polars', 'mapie', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_froc_loads_nothing() -> None:
    """Its functions are looked up at first use, and are listed."""
    code = (
        "import sys\nbefore = set(sys.modules)\nimport froc\n"
        "ours = {name.partition('.')[0] for name in set(sys.modules) - before} & {'numpy', 'polars', 'torch', 'typer'}\n"
        "assert not ours, ours\n"
        "assert {'certify', 'compare', 'load', 'monitor', 'plan', 'report', 'verify'} <= set(dir(froc))\n"
        "assert froc.certify.__module__ == 'froc.certification.certify' and froc.verify.__module__ == 'froc.audit.api' and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
