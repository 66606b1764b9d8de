"""Files are written in one place, under names that nobody can foresee, and never through a link."""

import ast
import stat
from pathlib import Path

import pytest

from froc import atomic
from froc.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"write_text", "write_bytes", "savefig", "save_pretrained", "write_parquet", "write_csv", "write_ndjson", "mkstemp", "NamedTemporaryFile"}  # fmt: skip
DELEGATED = {
    ("cli/show/page.py", "NamedTemporaryFile"): "a random, exclusive name in the folder of temporary files",
    ("froc/certification/certify.py", "write_csv"): "into memory: no path is given",
    ("froc/comparison/figure.py", "savefig"): "matplotlib writes the picture that a user names",
    ("froc/reporting/bounds.py", "savefig"): "matplotlib writes the picture that a user names",
    ("froc/reporting/drift.py", "savefig"): "matplotlib writes a picture into the run folder",
    ("froc/reporting/sustainability.py", "savefig"): "matplotlib writes the picture that a user names",
    ("froc/reporting/landscape.py", "savefig"): "matplotlib writes the picture that a user names",
    ("froc/models/base.py", "save_file"): "into the exclusive file of froc.atomic.replacing",
    ("froc/models/base.py", "save_pretrained"): "transformers writes into a folder of its own, which is renamed then",
    ("froc/models/inference_files.py", "save_pretrained"): "into a temporary folder, to be compared",
    ("froc/monitoring/figure.py", "savefig"): "matplotlib writes the picture that a user names",
    ("froc/planning/figure.py", "savefig"): "matplotlib writes the picture that a user names",
    (
        "froc/training/embedded.py",
        "save_pretrained",
    ): "transformers writes into a folder of its own, which is renamed then",
    ("search/run_folder.py", "write_parquet"): "into the exclusive file of froc.atomic.replacing",
}
"""Who else writes files, and why that is as it must be."""


def _writes(node: ast.Call) -> str | None:
    """What a call writes with; None where it writes nothing, or with froc.atomic."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if isinstance(node.func, ast.Name):
        return name if name == "save_file" or (name == "open" and _opens(node, 1)) else None
    owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
    if name == "open" and owner == "os":
        return name if any("O_WRONLY" in ast.unparse(a) or "O_RDWR" in ast.unparse(a) for a in node.args) else None
    if name in ("open", "fdopen") and _opens(node, 1 if owner in ("os", "io") else 0):
        return name
    return name if name in METHODS and owner != "atomic" else None


def _opens(node: ast.Call, place: int) -> bool:
    """Whether a call of open has a mode that writes."""
    modes = [*node.args[place : place + 1], *(key.value for key in node.keywords if key.arg == "mode")]
    return any(isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wax+") for m in modes)


def test_nobody_else_writes_files() -> None:
    seen = set()
    for room in ("froc", "search", "audit", "cli"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name == "atomic.py" and room == "froc":
                continue
            calls = [
                node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
            ]
            names = filter(None, (_writes(node) for node in calls))
            seen |= {(path.relative_to(ROOT).as_posix(), name) for name in names}
    assert seen == DELEGATED.keys()


def test_no_link_is_written_through(tmp_path: Path) -> None:
    victim, place = tmp_path / "victim", tmp_path / "place"
    victim.write_text("mine")
    place.symlink_to(victim)
    for write in (lambda: atomic.write_text(place, "theirs"), lambda: atomic.lock(place)):
        with pytest.raises(InputError, match="symbolic link"):
            write()
    with pytest.raises(FileExistsError):
        atomic.create(place, b"theirs")
    assert victim.read_text() == "mine"
    assert place.is_symlink()


def test_links_under_names_of_earlier_versions_are_not_met(tmp_path: Path) -> None:
    victim, place = tmp_path / "victim", tmp_path / "place.json"
    victim.write_text("mine")
    (tmp_path / ".place.json.part").symlink_to(victim)
    atomic.write_text(place, "whole")
    atomic.write_bytes(tmp_path / "secret", b"1", mode=0o600)
    assert (victim.read_text(), place.read_text()) == ("mine", "whole")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def _half(place: Path) -> None:
    with atomic.replacing(place) as part:
        part.write_text("half")
        raise ZeroDivisionError


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    atomic.write_text(place, "old")
    with pytest.raises(ZeroDivisionError):
        _half(place)
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    aim = tmp_path / "aim"
    aim.write_text("precious\n")
    (tmp_path / "run.log").symlink_to(aim)
    with pytest.raises(InputError, match="symbolic link"):
        atomic.open_log(tmp_path / "run.log")
    assert aim.read_text() == "precious\n"
    for line in ("one\n", "two\n"):
        with atomic.open_log(tmp_path / "fresh.log") as stream:
            stream.write(line)
    assert (tmp_path / "fresh.log").read_text() == "one\ntwo\n"
