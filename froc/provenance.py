"""Plug-ins of other packages that a plan uses: distribution, version and a digest of their code. Torch-free.

The digest is SHA-256 over the sorted `sha256sum` lines of the distribution's code files (.py and compiled modules), as
importlib.metadata lists them, and of those in the plug-in's top-level package (`rule: distribution`). Where that list does not
hold the plug-in's own file, as for editable installs and folders without a RECORD, it is over the code files of its top-level
package, or of its module's file alone (`rule: module`). A bytecode cache that differs from its source is refused. What the
plug-in imports from other packages is not covered.
"""

import importlib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from froc import bytecode, hashing, plugins
from froc.errors import InputError

CODE_SUFFIXES = (".py", ".pyc", ".so", ".pyd")
"""A `.pyc` that lies beside sources is run as a module; caches in `__pycache__` are compared with their sources instead."""
GROUPS = {
    "attack": "froc.attacks",
    "bound": "froc.bounds",
    "method": "froc.methods",
    "metric": "froc.metrics",
    "procedure": "froc.procedures",
}
"""Kinds of plug-ins whose names a plan holds -> the entry point group that finds them."""


def named(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, name) of every plug-in that a plan's document names, each once, sorted."""
    measurements = [str(text) for text in plan["metrics"].values()]
    pairs = {("bound", str(name)) for name in plan["bound"].values()}
    pairs.add(("procedure", _plain(str(plan["procedure"]))))
    pairs |= {("metric", _plain(text)) for text in measurements}
    pairs |= {("attack", name) for text in measurements for name in _attacks(text)}
    methods = [str(name) for name in plan["search"].get("methods", ())]
    pairs |= {("method", part) for name in methods for part in re.split(r"[()]", name) if part}
    return sorted((kind, name.replace("-", "_")) for kind, name in pairs)


def _plain(measurement: str) -> str:
    """A name without settings, attacks and pool."""
    return re.split(r"[:@/]", measurement, maxsplit=1)[0]


def _attacks(measurement: str) -> list[str]:
    """Every part after @ and +, whether its name is known or not."""
    attacks = measurement.partition("@")[2]
    # a number such as 1e+3 holds a plus, and a name begins with a letter
    return [_plain(part) for part in re.split(r"\+(?![0-9])", attacks) if part]


def unknown(plan: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(kind, name) of plug-ins in a plan that are not froc's own."""
    own = {kind: plugins.builtin_names(module) for kind, module in GROUPS.items()}
    return {(kind, name) for kind, name in named(plan) if name not in own[kind]}


PAPERS = ("attack", "method", "metric")
"""Kinds of plug-ins that stand for a paper's."""


def outside(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every plug-in of another package that a plan names: kind, name, distribution, version, sha256 and rule; sorted."""
    entries = []
    for kind, name in named(plan):
        point = plugins.entry_point(GROUPS[kind], name)
        if point is not None:
            entries.append({"kind": kind, "name": name, **trace(point)})
    return entries


def trace(point: EntryPoint) -> dict[str, str]:
    """distribution, version, and a digest of the code behind an entry point. InputError where there is no code to read."""
    top = _place(point)
    listed = [Path(str(path.locate())).resolve() for path in (point.dist.files if point.dist else None) or ()]
    code = [path for path in listed if _is_code(path)]
    if top[0] in code:
        root = Path(str(point.dist.locate_file(""))).resolve() if point.dist else top[0].parent
        rule, files = "distribution", sorted({*code, *top})
    else:
        root, rule, files = top[0].parent, "module", sorted(top)
    for path in files:
        if path.suffix == ".py":
            bytecode.refuse_other(path)
    names = {_below(path, root): hashing.sha256_file(path) for path in files}
    about = point.dist
    return {
        "distribution": _word(about.name if about else ""),
        "version": _word(about.version if about else ""),
        "sha256": hashing.sha256_tree(names),
        "rule": rule,
    }


def _place(point: EntryPoint) -> tuple[Path, ...]:
    """The plug-in's own file first, then the other code files of its top-level package."""
    module = importlib.import_module(point.module)
    if not getattr(module, "__file__", None):
        raise InputError(f"the plug-in {point.name} ({point.value}) has no file; install its package again")
    own = Path(str(module.__file__)).resolve()
    top = importlib.import_module(point.module.partition(".")[0])
    if not getattr(top, "__file__", None) or not hasattr(top, "__path__"):
        return (own,)
    folder = Path(str(top.__file__)).resolve().parent
    if [Path(place).resolve() for place in top.__path__] != [folder]:
        raise InputError(
            f"{top.__name__} of the plug-in {point.name} imports modules from other places than {folder}; it is refused"
        )
    paths = sorted(folder.rglob("*"))
    linked = next((path for path in paths if path.is_symlink()), None)
    if linked is not None:
        raise InputError(
            f"{linked} of the plug-in {point.name} is a link, behind which code may change; put what it links to there"
        )
    return (own, *(path for path in paths if _is_code(path) and path != own))


def _is_code(path: Path) -> bool:
    is_cache = path.suffix == ".pyc" and path.parent.name == "__pycache__"
    return path.suffix in CODE_SUFFIXES and not is_cache and path.is_file()


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _word(text: str) -> str:
    """A distribution's name or version with only the characters that reports allow."""
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)[:80] or "unknown"


def sentences(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line per package: the plug-ins of the run that it provides."""
    packages: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        key = (entry["distribution"], entry["version"], entry["sha256"])
        packages.setdefault(key, []).append(f"{entry['kind']} {entry['name']}")
    return [
        f"{name} {version} ({', '.join(parts)}; code SHA-256 {sha[:16]})"
        for (name, version, sha), parts in packages.items()
    ]
