"""`froc list`: what there is of each kind, as a table, in full, or as JSON."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import typer
from rich.table import Table

from froc.cli import options, words
from froc.errors import InputError

EXAMPLES = """[bold]Examples[/]

froc list

froc list methods

froc list methods npo

froc list risks
"""
Listed = Callable[[str | None], list[dict[str, Any]]]
"""Entries of a kind, or the one of a name."""
TASKS = {
    "embedded": (
        "64 fictitious people and a small model that knows them: what froc search does without --task; further requests: embedded:2 ...",
        "--task embedded:K",
    ),
    "folder": (
        "task.toml and forget, retain, forget_queries, retain_queries, holdout, idk (docs/tasks.md)",
        "--task DIR",
    ),
    "benchmarks": (
        "benchmarks, from the files that their authors publish (froc list benchmarks)",
        "--task NAME:PART --data DIR",
    ),
}
KINDS = {
    "metrics": ("froc.measuring.metric", "Metric"),
    "attacks": ("froc.measuring.attack", "Attack"),
    "bounds": ("froc.bounds", "Bound"),
    "procedures": ("froc.procedures", "Procedure"),
    "formats": ("froc.formats", "Format"),
}


def listing(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="methods, metrics, attacks, risks, profiles, bounds, procedures, formats, benchmarks or tasks."
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None,
    json_: options.Json = False,
) -> None:
    """What is there: hyperparameters, ranges and sources."""
    made: dict[str, Listed] = {"methods": _methods} | {
        label: partial(_plugins, *place) for label, place in KINDS.items()
    }
    made |= NAMED
    if kind is not None and kind not in made:
        raise InputError(f"nothing is listed under {kind!r}; there are: {', '.join(made)}")
    found = {label: list_(name) for label, list_ in made.items() if kind in (None, label)}
    if json_:
        words.emit(found if kind is None else found[kind])
        return
    for label, entries in found.items():
        if name is not None:
            words.results.print(_in_full(entries[0]))
            continue
        table = Table(title=label, title_justify="left", box=None, header_style="bold")
        more = ("family", "needs", "cost") if label == "methods" else ()
        for column in ("name", "what it is", *more, "hyperparameters", "source"):
            table.add_column(column, overflow="fold")
        for entry in entries:
            fields = ", ".join(f"{key} {value['range']}" for key, value in entry["hyperparameters"].items())
            told = (", ".join(entry[key]) if isinstance(entry[key], list) else str(entry[key]) for key in more)
            table.add_row(
                words.name(entry["name"]),
                words.visible(entry["summary"]),
                *map(words.visible, (*told, fields, entry["source"])),
            )
        words.results.print(table)


def _plugins(package: str, base: str, name: str | None) -> list[dict[str, Any]]:
    import dataclasses
    import importlib
    import inspect

    from froc.hyperparameters import spaces
    from froc.plugins import find, names, summary

    kind = getattr(importlib.import_module(package), base)
    entries = []
    for each in [name] if name else names(kind):
        plugin = find(kind, each)
        defaults = {field.name: field.default for field in dataclasses.fields(plugin)}
        entries.append(
            {
                "name": each.replace("-", "_"),
                "summary": summary(plugin),
                "doc": inspect.getdoc(plugin) or "",
                "family": getattr(plugin, "family", ""),
                "source": getattr(plugin, "paper", "") or getattr(plugin, "theorem", ""),
                "hyperparameters": {
                    key: {"range": str(what), "default": defaults[key]} for key, what in spaces(plugin).items()
                },
            }
        )
    return entries


def _methods(name: str | None) -> list[dict[str, Any]]:
    """Also what they need and what a step costs; of a wrapper, what it adds to gradient difference."""
    from froc.plugins import find, spelled
    from froc.training.method import Method, Wrapper

    entries = _plugins("froc.training.method", "Method", name and spelled(Method, name))
    plain = find(Method, "grad_diff")
    for entry in entries:
        method = find(Method, entry["name"])
        less: tuple[str, ...] = ()
        if issubclass(method, Wrapper) and "(" not in entry["name"]:
            method, less = method.around(plain), plain.needs()
        # a wrapper's own ranges are those of its fields alone
        entry["hyperparameters"] = {
            key: value for key, value in entry["hyperparameters"].items() if not (less and key in ("lr", "epochs"))
        }
        entry |= {
            "needs": ["another method"] * bool(less) + [one for one in method.needs() if one not in less],
            "cost": round(method.cost(), 2),
            "around": bool(less),
        }
    return entries


def _entry(name: str, summary: str, source: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "doc": summary, "family": "", "source": source, "hyperparameters": {}}


def _only(entries: list[dict[str, Any]], name: str | None, kind: str) -> list[dict[str, Any]]:
    some = [entry for entry in entries if name in (None, entry["name"])]
    if not some:
        raise InputError(f"no {kind} is called {name!r}; there are: {', '.join(entry['name'] for entry in entries)}")
    return some


def _risks(name: str | None) -> list[dict[str, Any]]:
    from froc.measuring.named_risks import KNOWN

    return _only(
        [
            _entry(risk, one.says + (f" (budget {one.budget:g} unless said)" if one.budget else ""), one.of)
            for risk, one in KNOWN.items()
        ],
        name,
        "risk",
    )


def _profiles(name: str | None) -> list[dict[str, Any]]:
    from froc.measuring.named_risks import KNOWN, PROFILES

    entries = []
    for profile, some in PROFILES.items():
        lines = [
            f"{risk}: {KNOWN[risk].of}, budget {KNOWN[risk].budget or 'as --budget says'}; {KNOWN[risk].says}"
            for risk in some
        ]
        entries.append(_entry(profile, ", ".join(some), "") | {"doc": "\n".join(lines)})
    return _only(entries, name, "profile")


def _tasks(name: str | None) -> list[dict[str, Any]]:
    return _only([_entry(task, *said) for task, said in TASKS.items()], name, "task")


def _benchmarks(name: str | None) -> list[dict[str, Any]]:
    from froc.data.benchmarks import BenchmarkReader
    from froc.plugins import find

    entries = _plugins("froc.data.benchmarks", "BenchmarkReader", name)
    for entry in entries:
        reader = find(BenchmarkReader, entry["name"])
        more = {"parts": list(reader.parts), "files": reader.files, "origin": reader.origin}
        told = f"parts: {', '.join(reader.parts)}\nfiles: {reader.files}\nfrom: {reader.origin}"
        entry |= more | {"summary": f"{entry['summary']}\n{told}", "doc": f"{entry['doc']}\n\n{told}"}
    return entries


NAMED: dict[str, Listed] = {
    "benchmarks": _benchmarks,
    "risks": _risks,
    "profiles": _profiles,
    "tasks": _tasks,
}


def _in_full(entry: Mapping[str, Any]) -> str:
    lines = [f"[bold]{entry['name']}[/]  {entry['family']}", entry["doc"].replace("[", "\\["), ""]
    if entry["source"]:
        lines += [f"source: {entry['source']}", ""]
    lines += [f"  {key} = {value['default']}   ({value['range']})" for key, value in entry["hyperparameters"].items()]
    if "cost" in entry:
        what = "gradient difference, changed by it, costs" if entry["around"] else "costs"
        lines += ["", f"needs: {', '.join(entry['needs']) or 'forget rows alone'}"]
        lines += [
            f"{what} {entry['cost']:g} times gradient difference per step; what is computed once per task is not in it"
        ]
    return "\n".join(lines)
