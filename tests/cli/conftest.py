"""The command line as tests call it."""

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.commands import Commands

Froc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def froc(commands: Commands) -> Froc:
    def run(*words: str, env: dict[str, str] | None = None, figures: bool = False) -> subprocess.CompletedProcess[str]:
        return commands.run(words, os.environ | (env or {}), figures=figures)

    return run
