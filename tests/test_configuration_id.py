"""Names of configurations: printed and parsed in one place, and nowhere taken apart as strings."""

import re
from pathlib import Path

import pytest

from froc.configuration_id import ConfigurationId
from froc.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("c0000", (0, None, None)), ("c0007-s21", (7, 21, None)), ("c0007-s21-m0750", (7, 21, 750)),
        ("c0012-s1-m1500", (12, 1, 1500)), ("c12345-s6-m1000", (12345, 6, 1000)),
    ],
)  # fmt: skip
def test_a_name_is_parsed_and_printed_again(name: str, parts: tuple[int, int | None, int | None]) -> None:
    parsed = ConfigurationId.parse(name)
    assert (parsed.trial, parsed.stop, parsed.mix) == parts
    assert str(parsed) == name


def test_stops_and_mixes_belong_to_their_trial() -> None:
    end = ConfigurationId(10000)
    mixed = end.variant(21, 0.75)
    assert str(mixed) == "c10000-s21-m0750"
    assert (mixed.of_trial, str(mixed.unmixed)) == (end, "c10000-s21")
    # the first five characters of both are the same
    assert mixed.of_trial != ConfigurationId.parse("c10001-s21-m0750").of_trial


@pytest.mark.parametrize(
    "name", ["", "c7", "0007", "c0007-m0750", "c0007-s21-m75", "c0007-s", "c0007 ", "base", "c٠٠٠٠"]
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no configuration of a search"):
        ConfigurationId.parse(name)


def test_no_other_module_takes_names_apart() -> None:
    """Of the ways in which it was done: splitting at a dash, cutting five characters, formatting the trial's number."""
    ways = re.compile(r"config\w*(\[\"config\"\])?\.(r?partition|split)\(|\.config\[:|f\"c\{.*:04d\}|-s\{.*-m\{")
    modules = [path for room in ("froc", "search", "audit", "cli") for path in (ROOT / room).rglob("*.py")]
    assert [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in modules
        if path.name != "configuration_id.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if ways.search(line)
    ] == []
