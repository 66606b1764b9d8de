"""`show`, `certify`, `list`: tables for people, or JSON for programs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli import options, words
from froc.errors import InputError, NotCertifiedError

if TYPE_CHECKING:
    from search.folder import Started

CERTIFY_EXAMPLES = """[bold]Examples[/]

froc certify losses.parquet --budget 0.1

froc certify losses.csv --budget forgetting=0.05 --budget utility=0.1 --procedure fixed-sequence --json

froc certify losses.csv --budget 0.1 --unit group --radius 0.05

froc certify losses.csv --budget combined=0.1 --weight forgetting=0.5 --weight utility=0.5

froc certify losses.csv --budget 0.1 --population forgetting=sample --listed forgetting=400

froc certify saves/duet --format open-unlearning --measures

froc certify saves/duet --format open-unlearning --loss forgetting=forget_qa_rouge --loss utility=1-holdout_qa_rouge --budget 0.3 --search-share 0.2
"""
SHOW_EXAMPLES = """[bold]Examples[/]

froc show froc-run

froc show froc-run --json

froc show froc-run --watch

froc show froc-run --open
"""
LIST_EXAMPLES = """[bold]Examples[/]

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
    "layouts": (
        "benchmarks, from the files that their authors publish (froc list layouts)",
        "--task NAME:PART --data DIR",
    ),
}
KINDS = {
    "metrics": ("froc.metrics", "Metric"),
    "attacks": ("froc.attacks", "Attack"),
    "bounds": ("froc.bounds", "Bound"),
    "procedures": ("froc.procedures", "Procedure"),
    "formats": ("froc.formats", "Format"),
}


def show(
    run: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking until the run is finished.")] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 1.0,
    open_: Annotated[
        bool, typer.Option("--open", help="Show a finished run as a report's page, marked unsigned, in the browser.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write that page here instead of opening it.", show_default=False)
    ] = None,
) -> None:
    """A run's trials, certificate and figures; exit 3 where it is finished and nothing is certified."""
    from search.folder import Folder

    if open_ or page is not None:
        from cli.drafting import draft

        draft(run, page, open_)
        return

    if watch and json_:
        raise InputError("--watch draws for people; leave --json out, or call froc show --json again and again")
    if watch:
        from cli.watching import follow

        follow(run, interval)
    folder = Folder(run)
    plan = folder.read(folder.plan)
    if plan is None:
        raise InputError(f"{run} is no run folder (no plan.json); give the folder that froc search --out wrote")
    log = folder.log()
    certificate = folder.read(folder.certificate)
    if json_:
        words.emit({"plan": plan, "trials": [vars(line) for line in log], "certificate": certificate})
    else:
        words.results.print(trials(log, limits(plan["budget"])))
        if certificate is None:
            words.results.print(
                f"not finished: {sum(line.status == 'complete' for line in log)} complete trials so far"
            )
        else:
            summary(run, certificate)
    if certificate is not None and certificate["chosen"] is None:
        raise NotCertifiedError(certificate["reason"])


def certify(
    table: Annotated[
        list[Path], typer.Argument(help="Loss table (Parquet, CSV, JSON Lines, JSON), or logs of a --format.")
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget", "-b", help="Accepted risk: 0.1 for every risk, or RISK=0.1 (repeatable).", show_default=False
        ),
    ] = None,
    confidence: options.Confidence = 0.9,
    format_: Annotated[str, typer.Option("--format", help="Where the files come from (froc list formats).")] = "table",
    loss: Annotated[
        list[str] | None,
        typer.Option(
            help="RISK=NAME, RISK=1-NAME or RISK=base-NAME: what of a log's scores is a loss (docs/how-to/logs.md).",
            show_default=False,
        ),
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The base model's log, for base-NAME.", show_default=False)] = None,
    search_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the units that orders the configurations; the rest certifies.",
            show_default="the table's own splits",
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of that division.")] = 0,
    named_beforehand: Annotated[
        bool,
        typer.Option(
            "--named-beforehand", help="The configurations were named before anybody saw these losses: test on all."
        ),
    ] = False,
    procedure: options.Procedure = "weighted-holm",
    bound: options.Bound = "auto",
    binary: Annotated[
        bool,
        typer.Option("--binary", help="The losses can only be 0 or 1, by what they measure: auto takes exact bounds."),
    ] = False,
    unit: Annotated[str, typer.Option(help="Sampling unit: query, or group for the unit column.")] = "query",
    population: options.Population = None,
    listed: Annotated[
        list[str] | None, typer.Option(help="RISK=400: size of the list a sample was drawn from.", show_default=False)
    ] = None,
    weight: options.Weight = None,
    radius: options.Radius = 0.0,
    joint: options.Joint = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the bounds under shift into this PNG.", show_default=False)
    ] = None,
    measures: Annotated[
        bool, typer.Option("--measures", help="List what the logs measured, and do nothing else.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Risk control on losses that were measured already: which configurations are within budget?

    Configurations with search rows are tested in the order that those suggest. Without search rows all are equal, and must not
    have been chosen by looking at these losses; --search-share divides the rows where they were.
    """
    from froc import certifying

    if measures:
        _print_measures(table, format_, json_)
        return
    if not budget:
        raise InputError("nothing to certify without a budget; give --budget 0.1, or RISK=0.1 for each risk")
    rules = words.rules(loss or [])
    read = certifying.read(table, format_, rules, base)
    risks = sorted(read.losses["risk"].unique().to_list()) if "risk" in read.losses.columns else []
    found = certifying.certificate_of(
        read, words.budget(budget, risks), confidence=confidence, search_share=search_share, split_seed=split_seed,
        named_beforehand=named_beforehand or format_ == "table", procedure=procedure, bound=bound, binary=binary, unit=unit,
        population=words.per_risk(population or [], "population", str, risks),
        listed=words.per_risk(listed or [], "listed", int, risks),
        weights=words.per_risk(weight or [], "weight", float, risks), radius=radius, joint=joint,
    )  # fmt: skip
    certificate = found.document
    if figure is not None:
        from froc.curves import draw_shift

        draw_shift(figure, certificate)
    if json_:
        words.emit(certificate)
    else:
        _print(certificate)
    if certificate["chosen"] is None:
        raise NotCertifiedError(certificate["reason"])


def _print_measures(paths: Sequence[Path], format_: str, json_: bool) -> None:
    """What rules may name, and its mean in every log."""
    from froc.formats import Format
    from froc.formats._logs import Logs
    from froc.plugins import make

    reader = make(Format, format_)
    if not isinstance(reader, Logs):
        raise InputError(
            "a loss table has losses, not measures; give --format for another tool's logs (froc list formats)"
        )
    found = reader.measures(paths)
    if json_:
        words.emit(found.to_dicts())
        return
    configs = found["config"].unique(maintain_order=True).to_list()
    table = Table(title="Mean per query, in [0, 1]", title_justify="left", box=None, header_style="bold")
    table.add_column("measure", no_wrap=True)
    table.add_column("queries", justify="right")
    for config in configs:
        table.add_column(config, justify="right", overflow="fold")
    for (name, queries), some in found.group_by("measure", "queries", maintain_order=True):
        means = dict(zip(some["config"], some["mean"], strict=True))
        cells = ("" if means.get(config) is None else f"{means[config]:.3f}" for config in configs)
        table.add_row(str(name), str(queries), *cells)
    words.results.print(table)


def listing(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="methods, metrics, attacks, risks, profiles, bounds, procedures, formats, layouts or tasks."
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
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
            table.add_row(entry["name"], entry["summary"], *told, fields, entry["source"])
        words.results.print(table)


def summary(run: Path, certificate: Mapping[str, Any]) -> None:
    """The result of a run, for a person who does not know the paper."""
    _print(certificate)
    if certificate["sequential"]:
        spent = certificate["sequential"]
        words.results.print(f"measured {spent['measured']} of {spent['planned']} planned units, {spent['saved']} saved")
    if certificate["chosen"] is not None:
        _diagnostics(run)
        words.results.print(
            f"model: {run / 'model'}   figures: {run / 'figures'}   next: froc audit report {run}",
            soft_wrap=True,
        )


def _diagnostics(run: Path) -> None:
    """What is computed beside the certificate, on search queries; runs of older versions have none."""
    from search.folder import Folder

    folder = Folder(run)
    found = folder.read(folder.diagnostics)
    if found is None:
        return
    utility = found["model_utility"]
    parts = [f"model utility {utility['chosen']:.3f} (base {utility['base']:.3f})"]
    parts += [f"{name} CKA to the base {min(layers):.2f} .. {max(layers):.2f}" for name, layers in found["cka"].items()]
    if "mia_auc" in found:
        parts.append(f"membership AUC {found['mia_auc']:.2f}, PrivLeak {found['priv_leak']:.0f} %")
    words.results.print(f"[dim]diagnostics, not certified: {'; '.join(parts)}[/]", soft_wrap=True)


FEW = 3
"""Risks that have columns of their own; more stand in a table of the chosen or closest configuration."""


def _print(certificate: Mapping[str, Any]) -> None:
    words.results.print(_certificate(certificate))
    shown = certificate["chosen"] or (certificate.get("closest") or {}).get("config")
    row = next((one for one in certificate["candidates"] if one["config"] == shown), None)
    if len(certificate["budget"]) > FEW and row is not None:
        words.results.print(_every_risk(certificate, row))
    words.results.print(certificate["reason"], soft_wrap=True)
    for line in certificate["warnings"]:
        words.messages.print(f"[yellow]warning:[/] {line}", soft_wrap=True)


def _every_risk(certificate: Mapping[str, Any], row: Mapping[str, Any]) -> Table:
    which = "chosen" if row["certified"] else "closest, not certified"
    table = Table(title=f"Every risk of {row['config']} ({which})", title_justify="left", header_style="bold")
    for column in ("risk", "units", "measured", "at most", "budget", "p-value"):
        table.add_column(column, justify="left" if column == "risk" else "right", no_wrap=True)
    for risk, alpha in _ordered(certificate["budget"]):
        cur = row["cur"][risk]["simultaneous"]
        cells = (f"{row['empirical'][risk]:.3f}", f"{cur:.3f}", f"{alpha:g}", f"{row['p_values'][risk]:.2g}")
        table.add_row(risk, str(row["n"].get(risk, "")), *cells, style="green" if cur <= alpha else "")
    return table


def _ordered(budget: Mapping[str, float]) -> list[tuple[str, float]]:
    """Forgetting and utility first, the others after them."""
    first = [risk for risk in words.RISKS if risk in budget]
    return [(risk, budget[risk]) for risk in (*first, *(risk for risk in budget if risk not in first))]


def _certificate(certificate: Mapping[str, Any]) -> Table:
    confidence = certificate["confidence"]
    table = Table(
        title=f"Risks on {_where(certificate)}, confidence {confidence:.0%}",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("config", no_wrap=True)
    named = any(one["method"] for one in certificate["candidates"])
    if named:
        table.add_column("method", no_wrap=True)
    shown = _ordered(certificate["budget"])
    shown = shown if len(shown) <= FEW else [(risk, alpha) for risk, alpha in shown if risk in words.RISKS]
    for risk, alpha in shown:
        table.add_column(f"{risk}\nmeasured", justify="right", no_wrap=True)
        table.add_column(f"at most\n(budget {alpha:g})", justify="right", no_wrap=True)
    table.add_column("p-value", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in certificate["candidates"]:
        chosen = one["config"] == certificate["chosen"]
        cells = []
        for risk, _ in shown:
            cells += [f"{one['empirical'][risk]:.3f}", f"{one['cur'][risk]['simultaneous']:.3f}"]
        screened = one["config"] in (certificate["screened"] or ())
        verdict = "certified, chosen" if chosen else "certified" if one["certified"] else "not certified"
        verdict = "screened" if screened else verdict
        style = "bold green" if chosen else "green" if one["certified"] else "dim"
        method = [one["method"]] if named else []
        table.add_row(one["config"], *method, *cells, f"{one['p_value']:.2g}", verdict, style=style)
    return table


def _where(certificate: Mapping[str, Any]) -> str:
    """Which queries certify, and how configurations came to be in their order."""
    design = certificate.get("design")
    if design is None:
        return "sealed calibration queries"
    if design["kind"] == "named-beforehand":
        return "all rows, for configurations named beforehand"
    if design["kind"] == "split-as-given":
        return "calibration rows, in the order of the search rows"
    return f"rows that chose no order ({design['share']:g} of the units did, seed {design['seed']})"


def trials(log: "Sequence[Started]", budget: Mapping[str, float]) -> Table:
    """A row per trial: the best of its stops and mixes."""
    table = Table(
        title="Trials (search queries), the best of each", title_justify="left", header_style="bold", box=None
    )
    for column in ("configuration", "method", *budget, "seconds", "status"):
        table.add_column(column, justify="right" if column in (*budget, "seconds") else "left")
    for line in log:
        measured = [one for one in line.configurations() if one.search]
        best = min(measured, key=lambda one: max((one.search or {})[r] / a for r, a in budget.items()), default=line)
        means = [f"{best.search[risk]:.3f}" if best.search else "" for risk in budget]
        status = line.status + (f" ({line.reason})" if line.reason else "")
        table.add_row(best.config, line.method, *means, f"{line.seconds:.1f}", status)
    return table


def _plugins(package: str, base: str, name: str | None) -> list[dict[str, Any]]:
    import dataclasses
    import importlib
    import inspect

    from froc.params import spaces
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
    from froc.methods import Method, Wrapper
    from froc.plugins import find, spelled

    entries = _plugins("froc.methods", "Method", name and spelled(Method, name))
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
            "needs": [one for one in method.needs() if one not in less],
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
    from froc.presets import KNOWN

    return _only(
        [
            _entry(risk, one.says + (f" (budget {one.budget:g} unless said)" if one.budget else ""), one.of)
            for risk, one in KNOWN.items()
        ],
        name,
        "risk",
    )


def _profiles(name: str | None) -> list[dict[str, Any]]:
    from froc.presets import KNOWN, PROFILES

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


def _layouts(name: str | None) -> list[dict[str, Any]]:
    from froc.layouts import Layout
    from froc.plugins import find

    entries = _plugins("froc.layouts", "Layout", name)
    for entry in entries:
        layout = find(Layout, entry["name"])
        more = {"parts": list(layout.parts), "files": layout.files, "origin": layout.origin}
        told = f"parts: {', '.join(layout.parts)}\nfiles: {layout.files}\nfrom: {layout.origin}"
        entry |= more | {"summary": f"{entry['summary']}\n{told}", "doc": f"{entry['doc']}\n\n{told}"}
    return entries


NAMED: dict[str, Listed] = {
    "layouts": _layouts,
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


def limits(budget: Mapping[str, float]) -> dict[str, float]:
    """Budgets of the risks that trials measure."""
    return {risk: alpha for risk, alpha in budget.items() if risk in words.RISKS}
