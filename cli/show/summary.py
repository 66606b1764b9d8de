"""The look of runs and certificates in a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from froc.cli import words
from froc.configuration_id import EXTERNAL_METHOD
from froc.measuring import named_risks
from froc.risk.rounding import at_least, at_most

if TYPE_CHECKING:
    from froc.search.run_folder import Folder, TrialRecord


def unopened_reason(folder: "Folder") -> str:
    """Why a search opened no calibration query; empty where it did, or has not got that far."""
    if folder.read(folder.seal) is not None:
        return ""
    return str((folder.read(folder.unopened) or {}).get("reason", ""))


def summary(run: Path, certificate: Mapping[str, Any]) -> None:
    """The result of a run, for a person who does not know the paper."""
    if certificate.get("opened") is False:
        words.results.print(words.visible(certificate["reason"]), soft_wrap=True)
        return
    certified(certificate)
    if certificate["sequential"]:
        spent = certificate["sequential"]
        line = f"measured {spent['measured']} of {spent['planned']} planned units, {spent['saved']} saved"
        words.results.print(words.visible(line))
    closest = certificate.get("closest")
    if closest and closest["method"] != EXTERNAL_METHOD and "further" not in closest["needs"]:
        words.messages.print(
            "[dim]note: with --extendable, a search like this can go on with fresh queries (froc extend)[/]",
            soft_wrap=True,
        )
    if certificate["chosen"] is not None:
        _diagnostics(run)
        line = f"model: {run / 'model'}   figures: {run / 'figures'}   next: froc audit report {run}"
        words.results.print(words.visible(line), soft_wrap=True)


def _diagnostics(run: Path) -> None:
    """Diagnostics on search queries, computed beside the certificate; runs of older versions have none."""
    from froc.search.run_folder import Folder

    folder = Folder(run)
    if (folder.read(folder.plan) or {}).get("after") and not folder.sustainability.is_file():
        words.messages.print(
            "[yellow]warning:[/] the record of removals is missing (not enough memory); the certificate does not depend on it, and the "
            "same command makes it again",
            soft_wrap=True,
        )
    diagnostics = folder.read(folder.diagnostics)
    if diagnostics is None:
        return
    for line in diagnostics.get("exchangeability", ()):
        words.messages.print(f"[yellow]warning:[/] {words.visible(line)}", soft_wrap=True)
    if "missing" in diagnostics:
        words.messages.print(
            f"[yellow]warning:[/] diagnostics are missing ({words.visible(str(diagnostics['missing']))}); the certificate does not depend on them, and the "
            "same command computes them again",
            soft_wrap=True,
        )
        return
    utility = diagnostics["model_utility"]
    parts = [f"model utility {utility['chosen']:.3f} (base {utility['base']:.3f})"]
    parts += [
        f"{name} CKA to the base {min(layers):.2f} .. {max(layers):.2f}" for name, layers in diagnostics["cka"].items()
    ]
    if "mia_auc" in diagnostics:
        parts.append(f"membership AUC {diagnostics['mia_auc']:.2f}, PrivLeak {diagnostics['priv_leak']:.0f} %")
    words.results.print(f"[dim]diagnostics, not certified: {words.visible('; '.join(parts))}[/]", soft_wrap=True)


FEW = 3
"""Number of risks with columns of their own; more go to a table of the chosen or closest configuration."""


def certified(certificate: Mapping[str, Any]) -> None:
    """Print a certificate: its table, its result and its warnings."""
    words.results.print(_certificate(certificate))
    shown = certificate["chosen"] or (certificate.get("closest") or {}).get("config")
    row = next((candidate for candidate in certificate["candidates"] if candidate["config"] == shown), None)
    if len(certificate["budget"]) > FEW and row is not None:
        words.results.print(_every_risk(certificate, row))
    words.results.print(words.visible(certificate["reason"]), soft_wrap=True)
    if certificate.get("base"):
        from froc.risk.positive_control import sentences

        for line in sentences(certificate["base"], certificate["candidates"], shown):
            words.results.print(words.visible(line), soft_wrap=True)
    for line in certificate["warnings"]:
        words.messages.print(f"[yellow]warning:[/] {words.visible(line)}", soft_wrap=True)


def _every_risk(certificate: Mapping[str, Any], row: Mapping[str, Any]) -> Table:
    which = "chosen" if row["certified"] else "closest, not certified"
    table = Table(
        title=f"Every risk of {words.name(row['config'])} ({words.visible(which)})",
        title_justify="left",
        header_style="bold",
    )
    for column in ("risk", "units", "measured", "at most", "budget", "p-value"):
        table.add_column(words.visible(column), justify="left" if column == "risk" else "right", no_wrap=True)
    for risk, alpha in _ordered(certificate["budget"]):
        cur = row["cur"][risk]["simultaneous"]
        cells = (
            f"{row['empirical'][risk]:.3f}",
            at_most(cur),
            f"{alpha:g}{_share(certificate, risk)}",
            f"{row['p_values'][risk]:.2g}",
        )
        table.add_row(
            words.name(risk), words.visible(str(row["n"].get(risk, ""))), *cells, style="green" if cur <= alpha else ""
        )
    return table


def _ordered(budget: Mapping[str, float]) -> list[tuple[str, float]]:
    """Forgetting and utility first, the others after them."""
    first = [risk for risk in named_risks.BASIC if risk in budget]
    return [(risk, budget[risk]) for risk in (*first, *(risk for risk in budget if risk not in first))]


def _certificate(certificate: Mapping[str, Any]) -> Table:
    confidence = certificate["confidence"]
    table = Table(
        title=f"Risks on {words.visible(_where(certificate))}, confidence {confidence:.0%}",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("config", no_wrap=True)
    named = any(candidate["method"] for candidate in certificate["candidates"])
    if named:
        table.add_column("method", no_wrap=True)
    shown = _ordered(certificate["budget"])
    shown = shown if len(shown) <= FEW else [(risk, alpha) for risk, alpha in shown if risk in named_risks.BASIC]
    for risk, alpha in shown:
        table.add_column(f"{words.name(risk)}\nmeasured", justify="right", no_wrap=True)
        table.add_column(
            f"at most\n(budget {alpha:g}{words.visible(_share(certificate, risk))})", justify="right", no_wrap=True
        )
    table.add_column("p-value", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if certificate.get("base"):
        before = [cell for risk, _ in shown for cell in _before(certificate["base"][risk])]
        table.add_row("base", *(["(before)"] if named else []), *before, "", "before unlearning", style="dim")
    for candidate in certificate["candidates"]:
        chosen = candidate["config"] == certificate["chosen"]
        cells = []
        for risk, _ in shown:
            cells += [f"{candidate['empirical'][risk]:.3f}", at_most(candidate["cur"][risk]["simultaneous"])]
        screened = candidate["config"] in (certificate["screened"] or ())
        verdict = "certified, chosen" if chosen else "certified" if candidate["certified"] else "not certified"
        verdict = "screened" if screened else verdict
        style = "bold green" if chosen else "green" if candidate["certified"] else "dim"
        method = [words.name(candidate["method"])] if named and candidate["method"] else [""] if named else []
        table.add_row(
            words.name(candidate["config"]), *method, *cells, f"{candidate['p_value']:.2g}", verdict, style=style
        )
    return table


def _share(certificate: Mapping[str, Any], risk: str) -> str:
    """What a relative budget is a share of."""
    return " of base" if risk in certificate.get("relative", ()) else ""


def _before(base_risk: Mapping[str, Any]) -> tuple[str, str]:
    """The base model's result: its risk, or the score of which a part can be lost."""
    return (
        f"{'of ' if base_risk['control'] == 'ceiling' else ''}{base_risk['before']:.3f}",
        f"at least {at_least(base_risk['lower'])}",
    )


def _where(certificate: Mapping[str, Any]) -> str:
    """Which queries certify, and how the configurations were ordered."""
    design = certificate.get("design")
    if design is None:
        return "sealed calibration queries"
    if design["kind"] == "named-beforehand":
        return "all rows, for configurations named beforehand"
    if design["kind"] == "split-as-given":
        return "calibration rows, in the order of the search rows"
    return f"rows that chose no order ({design['share']:g} of the units did, seed {design['seed']})"


def trials(log: "Sequence[TrialRecord]", budget: Mapping[str, float]) -> Table:
    """A row per trial: the best of its stops and mixes."""
    table = Table(
        title="Trials (search queries), the best of each", title_justify="left", header_style="bold", box=None
    )
    for column in ("configuration", "method", *budget, "seconds", "status"):
        table.add_column(words.visible(column), justify="right" if column in (*budget, "seconds") else "left")
    for record in log:
        measured = [configuration for configuration in record.configurations() if configuration.search]
        best = min(
            measured,
            key=lambda configuration: max((configuration.search or {})[r] / a for r, a in budget.items()),
            default=record,
        )
        means = [f"{best.search[risk]:.3f}" if best.search else "" for risk in budget]
        status = record.status + (f" ({record.reason})" if record.reason else "")
        table.add_row(
            words.name(best.config), words.name(record.method), *means, f"{record.seconds:.1f}", words.visible(status)
        )
    return table


def limits(budget: Mapping[str, float]) -> dict[str, float]:
    """Budgets of the risks that trials measure."""
    return {risk: alpha for risk, alpha in budget.items() if risk in named_risks.BASIC}
