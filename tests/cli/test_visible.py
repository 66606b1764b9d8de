"""Names from files of others reach a terminal as their characters, whatever they hold."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from froc.audit.rendering import numbers
from froc.cli import list_, words
from froc.reporting.tables import Printed, Table
from froc.visible import marked, name, visible
from tests.commands import Commands

HARD = [
    "a\x1b]0;PWNED\x07\x1b[31m[link=http://evil]x[/link]", "a[/b]", "[bold]", "a\\", "\\[red]", "\x9b31m", "\x1b]8;;http://evil\x1b\\x", "a‮b", "a\r\nb",
    "a certified", "not certified", "c0001  0.000  certified, chosen", 'a"b c', "a\u0301\u0301\u0301\u0301", "​", "\ud800", "⁦x⁩", "a\u2028b", "",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(HARD), st.text(), st.text(alphabet="[]/\\ab\x1b\x07\"' ", max_size=20))


def _printed(markup: str) -> str:
    drawn = io.StringIO()
    Console(file=drawn, width=10_000, highlight=False, force_terminal=False).print(markup, end="", soft_wrap=True)
    return drawn.getvalue()


@given(TEXTS)
def test_a_terminal_gets_the_visible_characters_and_nothing_else(text: str) -> None:
    whole = re.sub(r"\\+(?=\[|$)", lambda run: r"\u005c" * len(run[0]), visible(text))
    assert _printed(marked(text)) == whole
    assert _printed(f"[bold]{marked(text)}[/] end") == f"{whole} end"
    assert all(sign == " " or sign.isprintable() or ord(sign) > 0x7F for sign in visible(text))
    assert not set(visible(text)) & {
        chr(sign) for sign in (*range(32), *range(127, 160), 0x200B, 0x202E, 0x2066, 0x2028)
    }


@given(TEXTS)
def test_there_is_one_way_to_make_text_visible(text: str) -> None:
    assert words.visible(text) == marked(text)
    assert numbers.visible(text) == visible(text)
    assert visible(visible(text)) == visible(text)


@given(TEXTS)
def test_a_name_that_could_be_read_as_more_stands_in_quotes(text: str) -> None:
    shown = name(text)
    assert shown == visible(text) if shown[:1] != '"' else shown.endswith('"')
    assert " " not in shown or (shown[0] == shown[-1] == '"')


@pytest.mark.parametrize(
    "plain", ["c0001", "npo", "gu(npo)", "out/model-7b", "a[b]", "fürst", "extraction_strength@paraphrase:k=2", "模型"]
)
def test_usual_names_are_as_they_were(plain: str) -> None:
    assert name(plain) == plain


class _Result(Printed):
    def __init__(self, text: str) -> None:
        self.text = text

    def tables(self) -> list[Table]:
        return [Table(self.text, (self.text, "n"), ((self.text, "1"),))]

    def sentences(self) -> list[str]:
        return [self.text]


@given(st.one_of(st.sampled_from(HARD), st.text(min_size=1, max_size=30)))
def test_tables_and_sentences(text: str) -> None:
    result = _Result(text)
    for shown in (str(result), result._repr_html_()):
        assert not set(shown) & {"\x1b", "\x07", "\r", "‮", "\x9b"}


@pytest.mark.parametrize("text", [hard for hard in HARD if hard and "\r" not in hard and "\ud800" not in hard])
def test_a_certified_table(commands: Commands, tmp_path: Path, text: str) -> None:
    """Whatever a configuration is called: an answer, no escape, and no line of ours that it could have written."""
    cell = '"' + text.replace('"', '""') + '"'
    rows = "".join(f"{cell},forgetting,q{i},{loss}\n" for i in range(60) for loss in ("0.0",))
    place = tmp_path / "table.csv"
    place.write_text("config,risk,query,loss\n" + rows, encoding="utf-8")
    done = commands.run(["certify", str(place), "--budget", "forgetting=0.1", "--named-beforehand"])
    assert done.returncode in (0, 2, 3), done.stderr
    assert not set(done.stdout + done.stderr) & {"\x1b", "\x07", "\x9b", "‮"}
    assert "a bug" not in done.stderr


def test_a_listed_text_keeps_its_line_breaks_and_nothing_else_of_the_kind() -> None:
    assert list_._lines("one\ntwo\x1b[31m") == "one\ntwo\\u001b[31m"
