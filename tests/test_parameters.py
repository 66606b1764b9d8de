"""The Python functions have the parameters of the commands, under the same names."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from typer.main import get_command

import froc
import froc.search
from froc.cli.main import app
from froc.search.api import OPTIONS
from froc.search.settings import Settings

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "search": froc.search.run, "certify": froc.certify, "plan": froc.plan, "monitor": froc.monitor,
    "compare": froc.compare, "audit report": froc.report, "audit verify": froc.verify,
}  # fmt: skip
PYTHON_ALONE = {
    # `from` is a word of Python; a password is asked for at a terminal
    "plan": {"losses"}, "audit report": {"password"}, "search": {"progress", "settings"}, "compare": {"progress"},
}  # fmt: skip
"""Parameters that no option has."""
COMMAND_ALONE = {
    "search": {"json", "quiet", "key", "tsa", "tsa-root", "risk", "dry-run"}, "certify": {"json", "figure", "measures"},
    "plan": {"json", "figure", "from"}, "monitor": {"json", "figure"}, "compare": {"json", "quiet"},
    "audit report": {"json"}, "audit verify": {"json", "level"},
}  # fmt: skip
"""Options that no parameter has: what is printed and drawn is in the result; a search's plan is signed by the
command, and `metric` of Python defines further risks, too."""


def _options(command: str) -> list[set[str]]:
    """The names of each option and argument of a command."""
    node: Any = get_command(app)
    for name in command.split():
        node = node.commands[name]
    return [{name.lstrip("-") for name in (*option.opts, *option.secondary_opts)} for option in node.params]


@pytest.mark.parametrize("command", FUNCTIONS)
def test_parameters_are_named_as_the_options(command: str) -> None:
    options = [{name.replace("-", "_") for name in names} for names in _options(command)]
    parameters = set(inspect.signature(FUNCTIONS[command]).parameters)
    assert parameters - set().union(*options) == PYTHON_ALONE.get(command, set())
    if command == "search":
        # its further options are fields of the settings
        parameters |= {*inspect.signature(Settings).parameters, *OPTIONS}
    alone = [names for names in options if not names & parameters]
    assert {name for names in alone for name in names} >= {name.replace("-", "_") for name in COMMAND_ALONE[command]}
    assert len(alone) == len(COMMAND_ALONE[command])
