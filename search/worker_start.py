"""The first thing that a worker process runs; imports nothing slow, so that thread counts are set before torch is loaded."""

import importlib
import os
import signal
from collections.abc import Mapping
from typing import Any


def call(environment: Mapping[str, str], module: str, function: str, *arguments: Any) -> None:
    """Set environment variables, then call a function of a module. Ctrl-C, which reaches all processes of a terminal, is the driver's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    getattr(importlib.import_module(module), function)(*arguments)
