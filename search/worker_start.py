"""The first thing that a worker process runs; imports nothing slow, so that thread counts are set before torch is loaded."""

import importlib
import os
from collections.abc import Mapping
from typing import Any


def call(environment: Mapping[str, str], module: str, function: str, *arguments: Any) -> None:
    """Set environment variables, then call a function of a module."""
    os.environ.update(environment)
    getattr(importlib.import_module(module), function)(*arguments)
