"""The `froc` command. Finds the other rooms beside this package, whatever the current folder holds.

`search`, `audit` and `cli` are common words: a folder with its own `search/` or `cli.py` on the path must not be
imported in our place. So the rooms are loaded by location, here and in worker processes (`pin`).
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOMS = ("search", "audit", "cli")


def pin() -> None:
    """Bind the room names to the packages that stand beside this one."""
    for room in ROOMS:
        place = Path(__file__).resolve().parent.parent / room / "__init__.py"
        loaded = sys.modules.get(room)
        if loaded is not None and getattr(loaded, "__file__", None) == str(place):
            continue
        spec = importlib.util.spec_from_file_location(room, place, submodule_search_locations=[str(place.parent)])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[room] = module
        spec.loader.exec_module(module)


def call(environment: Mapping[str, str], module: str, function: str, *said: Any) -> None:
    """Call a room's function in a process that has just started, before it has imported anything that is slow."""
    os.environ.update(environment)
    pin()
    getattr(importlib.import_module(module), function)(*said)


def main() -> None:
    """Entry point of the console script."""
    pin()
    importlib.import_module("cli.main").main()


if __name__ == "__main__":
    main()
