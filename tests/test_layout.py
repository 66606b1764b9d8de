"""The rooms: arrows one way, torch-free where promised, and the command whatever lies around it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {"froc": set(), "search": {"froc"}, "audit": {"froc"}, "cli": {"froc", "search", "audit"}}
DOOR = {"froc/__init__.py": {"cli"}}
"""The public functions of the package: looked up at first use, imported for type checkers alone."""
TORCH_FREE = (
    "froc.errors", "froc.params", "froc.plugins", "froc.digest", "froc.data", "froc.losses", "froc.risk",
    "froc.claim", "froc.weights_digest", "audit.model_folder",
    "audit.exports.page", "audit.exports.markdown", "audit.exports.model_card", "audit.exports.cyclonedx", "audit.exports.svr",
    "froc.combined", "froc.curves", "froc.exchangeability", "froc.power", "froc.procedures", "froc.published", "froc.sentences",
    "froc.shift", "froc.figures", "froc.planning", "froc.planning_figure", "froc.monitoring", "froc.monitoring_figure", "froc.bounds.betting", "froc.bounds.binomial", "froc.bounds.hoeffding_bentkus",
    "froc.formats.table", "froc.formats.open_unlearning", "froc.formats.tofu", "froc.formats.lm_eval", "froc.formats.inspect", "froc.certifying", "froc.layouts.tofu", "froc.layouts.muse", "froc.layouts.wmdp", "froc.layouts.rwku", "audit.evidence", "audit.signing", "audit.verification", "audit.rendering", "cli.main",
)  # fmt: skip


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_point_one_way(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        allowed = MAY_IMPORT[room] | {room} | DOOR.get(path.relative_to(ROOT).as_posix(), set())
        wrong = _imports(path) & (set(MAY_IMPORT) - allowed)
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_rooms_map_names_what_is_in_it(room: str) -> None:
    """Every file and package of a room."""
    there = {path.stem for path in (ROOT / room).glob("*.py")} | {
        p.parent.name for p in (ROOT / room).glob("*/__init__.py")
    }
    tree = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))
    said = set(re.findall(r"\w+", ast.get_docstring(tree) or ""))
    assert there - {"__init__", "__main__"} <= said


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
    assert {"froc", "search", "audit", "cli"} <= folders <= {*MAY_IMPORT, "tests", "docs", "benchmarks", ".ci"}


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with packages of the rooms' names, which would end the program if imported."""
    for name in ("search", "audit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong room')", encoding="utf-8")
    (tmp_path / "cli.py").write_text("raise SystemExit('the wrong room')", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", [["-m", "froc"], ["-c", "from froc.__main__ import main; main()"]])
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


def test_worker_process_finds_our_rooms(crowded: Path) -> None:
    """A spawned worker pins the rooms before it unpickles its work."""
    script = crowded / "work.py"
    script.write_text(
        "import multiprocessing as mp\n"
        "from froc.__main__ import pin\n"
        "pin()\n"
        "if __name__ == '__main__':\n"
        "    from audit.signing import compact\n"
        "    with mp.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(compact, ([1, 2, 3],)).decode())\n",
        encoding="utf-8",
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    done = subprocess.run(
        [sys.executable, script.name], cwd=crowded, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[1,2,3]", done.stderr


@pytest.mark.parametrize("words", ["--help", "search --budget 2"])
def test_help_and_wrong_words_are_quick(words: str) -> None:
    """They need no heavy package; the time itself is a benchmark's business."""
    code = (
        f"import sys\nsys.argv = {['froc', *words.split()]}\nfrom froc.__main__ import main\n"
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
        "ours = {name.partition('.')[0] for name in set(sys.modules) - before} & {'numpy', 'polars', 'torch', 'cli', 'search', 'typer'}\n"
        "assert not ours, ours\n"
        "assert {'certify', 'monitor', 'plan', 'search'} <= set(dir(froc))\n"
        "assert froc.certify.__module__ == 'froc.certifying' and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_door_says_risks_by_their_names() -> None:
    """cli/words.py has them as text of its own: importing numpy for three words would slow `froc --help`."""
    from cli import words
    from froc import combined, data, presets

    assert words.RISKS == (data.FORGETTING, data.UTILITY)
    assert tuple(presets.KNOWN)[:2] == words.RISKS
    assert words.COMBINED == combined.COMBINED
