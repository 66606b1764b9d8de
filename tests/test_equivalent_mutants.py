"""The list of faults that no test can see is about the code as it is."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("froc", "search", "audit")
"""Folders that benchmarks/mutants.py puts faults into."""


def test_each_equivalent_mutant_is_about_a_line_of_the_code() -> None:
    """A line that was rewritten has other mutants: its entry goes or is written anew."""
    listed = ROOT / "benchmarks" / "equivalent_mutants.toml"
    befores = {row["before"] for row in tomllib.loads(listed.read_text(encoding="utf-8"))["mutant"]}
    code = "\n".join(
        " ".join(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
    )
    assert sorted(before for before in befores if before not in code) == []
