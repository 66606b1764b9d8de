"""The package structure: lines and files of each package, the packages it imports, import cycles, files above the limit.

    python benchmarks/arrows.py [--json]

Reads the source alone; tests/test_layout.py tests that there are no cycles and no long files.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.test_layout import FLOORS, LONGEST, MODULES, ROOT, eager_graph, graph


def structure() -> dict[str, Any]:
    """Packages from the top down, with lines, files and imports; cycles; long files."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    sizes: Counter[str] = Counter()
    files: Counter[str] = Counter()
    arrows: dict[str, Counter[str]] = defaultdict(Counter)
    for module, targets in graph().items():
        package = [*module.split("."), "froc"][1]
        sizes[package] += lines[module]
        files[package] += 1
        for target in targets:
            if "." in target and target.split(".")[1] != package:
                arrows[package][target.split(".")[1]] += 1
    try:
        TopologicalSorter(eager_graph()).prepare()
        cycle: list[str] = []
    except CycleError as error:
        cycle = list(error.args[1])
    order = [package for floor in FLOORS for package in floor]
    return {
        "packages": {
            name: {"lines": sizes[name], "files": files[name], "imports": dict(arrows[name].most_common())}
            for name in order
        },
        "floors": len(FLOORS),
        "lines": sum(lines.values()),
        "files": len(lines),
        "cycle": cycle,
        "longer": {
            MODULES[name].relative_to(ROOT).as_posix(): count for name, count in lines.items() if count > LONGEST
        },
    }


def main() -> None:
    """Print a line for each package, and the rest as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON alone")
    parser.add_argument("--quick", action="store_true", help="the same")
    document = structure()
    if not parser.parse_args().json:
        for name, entry in document["packages"].items():
            print(f"{name:16}{entry['lines']:6} lines {entry['files']:4} files -> {', '.join(entry['imports'])}")
    print(json.dumps({key: value for key, value in document.items() if key != "packages"}))


if __name__ == "__main__":
    main()
