"""`froc list`: the available plug-ins and tasks of each kind, as a table, in full, or as JSON."""

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

froc list methods --filter preference

froc list methods npo

froc list risks
"""
Listed = Callable[[str | None], list[dict[str, Any]]]
"""Returns the entries of a kind, or the one with a given name."""
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
    "hub": (
        "a data set of the Hugging Face hub with the splits forget, retain, ... (needs the library datasets)",
        "--task hf:ORG/NAME@REVISION",
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
    text: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help="Only what has this text in its name, family or summary.",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    json_: options.Json = False,
) -> None:
    """What there is of each kind: methods in a line each, the others with hyperparameters and sources; one of them in full by its name."""
    listed: dict[str, Listed] = {"methods": _methods} | {
        label: partial(_plugins, *place) for label, place in KINDS.items()
    }
    listed |= NAMED
    if kind is not None and kind not in listed:
        raise InputError(f"nothing is listed under {kind!r}; there are: {', '.join(listed)}")
    if kind == "methods" and name is None and not json_:
        # one line each: read from the source, as the libraries that methods need take seconds to import
        listed["methods"] = _method_lines
    entries = {label: _filtered(list_(name), text) for label, list_ in listed.items() if kind in (None, label)}
    if text is not None and not any(entries.values()):
        raise InputError(f"nothing here has {text!r} in its name, family or summary; leave --filter out to see all")
    if json_:
        words.emit(entries if kind is None else entries[kind])
        return
    for label, rows in entries.items():
        if name is not None:
            words.results.print(_in_full(rows[0]))
        elif label == "methods":
            _print_lines(rows)
        elif rows:
            words.results.print(_table(label, rows))


def _filtered(entries: list[dict[str, Any]], text: str | None) -> list[dict[str, Any]]:
    """Entries with a text in their name, family or summary, ignoring case."""
    wanted = (text or "").casefold()
    return [entry for entry in entries if wanted in f"{entry['name']} {entry['family']} {entry['summary']}".casefold()]


def _print_lines(entries: list[dict[str, Any]]) -> None:
    """Name, family and summary on one line each, whatever the terminal's width, so that the output can be searched."""
    name, family, tag = (
        max((len(str(entry[key])) for entry in entries), default=0) for key in ("name", "family", "fidelity")
    )
    for entry in entries:
        words.results.print(
            f"{words.name(entry['name']):<{name}}  {words.visible(entry['family']):<{family}}  {words.visible(entry['fidelity']):<{tag}}  {words.visible(entry['summary'])}",
            soft_wrap=True,
        )


def _table(title: str, entries: list[dict[str, Any]]) -> Table:
    table = Table(title=words.visible(title), title_justify="left", box=None, header_style="bold")
    tagged = any("fidelity" in entry for entry in entries)
    for column in ("name", *["true to its paper"] * tagged, "what it is", "hyperparameters", "source"):
        table.add_column(words.visible(column), overflow="fold")
    for entry in entries:
        ranges = ", ".join(f"{key} {value['range']}" for key, value in entry["hyperparameters"].items())
        tag = [entry.get("fidelity", "")] * tagged
        table.add_row(words.name(entry["name"]), *map(_lines, (*tag, entry["summary"], ranges, entry["source"])))
    return table


def _lines(text: str) -> str:
    """Visible text, its line breaks kept: a benchmark's parts and files stand below its summary."""
    return "\n".join(map(words.visible, text.split("\n")))


def _plugins(package: str, base: str, name: str | None) -> list[dict[str, Any]]:
    import dataclasses
    import importlib
    import inspect

    from froc import fidelity
    from froc.hyperparameters import spaces
    from froc.plugins import find, names, summary

    kind = getattr(importlib.import_module(package), base)
    entries = []
    for label in [name] if name else names(kind):
        plugin = find(kind, label)
        defaults = {field.name: field.default for field in dataclasses.fields(plugin)}
        entries.append(
            {
                "name": label.replace("-", "_"),
                "summary": summary(plugin),
                "doc": inspect.getdoc(plugin) or "",
                "family": getattr(plugin, "family", ""),
                **({"fidelity": fidelity.of(plugin)} if hasattr(plugin, "fidelity") else {}),
                "source": getattr(plugin, "paper", "") or getattr(plugin, "theorem", ""),
                "hyperparameters": {
                    key: {"range": str(field_space), "default": defaults[key]}
                    for key, field_space in spaces(plugin).items()
                },
            }
        )
    return entries


def _method_lines(_: str | None) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from froc.plugin_source import descriptions

    return [asdict(description) for description in descriptions("froc.methods")]


def _methods(name: str | None) -> list[dict[str, Any]]:
    """Methods with their requirements and cost per step; for a wrapper, what it adds to gradient difference."""
    from froc.plugins import canonical_name, find
    from froc.training.method import Method, Wrapper

    entries = _plugins("froc.training.method", "Method", name and canonical_name(Method, name))
    plain = find(Method, "grad_diff")
    for entry in entries:
        method = find(Method, entry["name"])
        less: tuple[str, ...] = ()
        if issubclass(method, Wrapper) and "(" not in entry["name"]:
            method, less = method.around(plain), plain.needs()
        # a wrapper's own ranges are those of its own fields
        entry["hyperparameters"] = {
            key: value for key, value in entry["hyperparameters"].items() if not (less and key in ("lr", "epochs"))
        }
        entry |= {
            "needs": ["another method"] * bool(less) + [need for need in method.needs() if need not in less],
            "cost": round(method.cost(), 2),
            "around": bool(less),
        }
    return entries


def _entry(name: str, summary: str, source: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "doc": summary, "family": "", "source": source, "hyperparameters": {}}


def _only(entries: list[dict[str, Any]], name: str | None, kind: str) -> list[dict[str, Any]]:
    named = [entry for entry in entries if name in (None, entry["name"])]
    if not named:
        raise InputError(f"no {kind} is called {name!r}; there are: {', '.join(entry['name'] for entry in entries)}")
    return named


def _risks(name: str | None) -> list[dict[str, Any]]:
    from froc.measuring.named_risks import KNOWN

    return _only(
        [
            _entry(risk, entry.says + (f" (budget {entry.budget:g} unless said)" if entry.budget else ""), entry.of)
            for risk, entry in KNOWN.items()
        ],
        name,
        "risk",
    )


def _profiles(name: str | None) -> list[dict[str, Any]]:
    from froc.measuring.named_risks import KNOWN, PROFILES

    entries = []
    for profile, risks in PROFILES.items():
        lines = [
            f"{risk}: {KNOWN[risk].of}, budget {KNOWN[risk].budget or 'as --budget says'}; {KNOWN[risk].says}"
            for risk in risks
        ]
        entries.append(_entry(profile, ", ".join(risks), "") | {"doc": "\n".join(lines)})
    return _only(entries, name, "profile")


def _tasks(name: str | None) -> list[dict[str, Any]]:
    return _only([_entry(task, *texts) for task, texts in TASKS.items()], name, "task")


def _benchmarks(name: str | None) -> list[dict[str, Any]]:
    from froc.data.benchmarks import BenchmarkReader
    from froc.plugins import find

    entries = _plugins("froc.data.benchmarks", "BenchmarkReader", name)
    for entry in entries:
        reader = find(BenchmarkReader, entry["name"])
        more = {"parts": list(reader.parts), "files": reader.files, "origin": reader.origin}
        where = f"parts: {', '.join(reader.parts)}\nfiles: {reader.files}\nfrom: {reader.origin}"
        entry |= more | {"summary": f"{entry['summary']}\n{where}", "doc": f"{entry['doc']}\n\n{where}"}
    return entries


NAMED: dict[str, Listed] = {
    "benchmarks": _benchmarks,
    "risks": _risks,
    "profiles": _profiles,
    "tasks": _tasks,
}


def _in_full(entry: Mapping[str, Any]) -> str:
    head = f"[bold]{words.name(entry['name'])}[/]  {words.visible(entry['family'])}"
    lines = [*entry["doc"].split("\n"), ""]
    if "fidelity" in entry:
        from froc.fidelity import MEANINGS

        lines += [f"{entry['fidelity']}: {MEANINGS[entry['fidelity']]}"]
    if entry["source"]:
        lines += [f"source: {entry['source']}", ""]
    lines += [f"  {key} = {value['default']}   ({value['range']})" for key, value in entry["hyperparameters"].items()]
    if "cost" in entry:
        costs = "gradient difference, changed by it, costs" if entry["around"] else "costs"
        lines += ["", f"needs: {', '.join(entry['needs']) or 'forget rows alone'}"]
        lines += [
            f"{costs} {entry['cost']:g} times gradient difference per step; what is computed once per task is not in it"
        ]
    return "\n".join([head, *map(words.visible, lines)])
