"""Commands in docs/how-to print what the page says they print, where their data is at hand."""

import re
import shlex
from pathlib import Path

import pytest

from tests.commands import Commands
from tests.conftest import SHARED

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "logs.md"
LOGS = SHARED / "data" / "eval_logs"
PAIRS = re.findall(r"```sh\nfroc (.*?)\n```\n\n```\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.skipif(not LOGS.is_dir(), reason="the logs are not at hand")
@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_a_command_prints_what_the_page_says(place: int, commands: Commands) -> None:
    command, printed = PAIRS[place]
    done = commands.run(shlex.split(command.replace("\\\n", "")), cwd=LOGS)
    assert [line.rstrip() for line in done.stdout.rstrip().splitlines()] == printed.splitlines()


def test_the_page_has_commands() -> None:
    assert len(PAIRS) == 4
