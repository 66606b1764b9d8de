"""A summary for a pull request, in Markdown that no name can break out of."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from froc import provenance
from froc.audit.exports import ExportContext, reported
from froc.audit.rendering.numbers import cut, measured, percent, short, up
from froc.audit.rendering.summary import claim, ordered
from froc.audit.rendering.words import ABOVE, DECISIONS, LIMITS
from froc.audit.verification import Result

MARKS = {"PASS": "✅", "FAIL": "❌", "NOT_ESTABLISHED": "❔"}
RESERVED = "⚠️"


def write(result: Result, context: ExportContext) -> str:
    """Decision, risks, limits and how to check them."""
    report = result.report
    lines = [
        f"### {MARKS[report['verdict']] if plain(result) else RESERVED} Unlearning audit {report['name']}: {decision(result)}",
        "",
        f"Verified {context.when} with key `{short(result.fingerprint)}`; "
        f"{'model files match' if result.model_checked else 'the model was not compared'}; losses {result.assurance.replace('_', '-')}.",
        "",
        *body(result),
        "",
        f"Report `sha256:{result.payload}`{f', {context.url}' if context.url else ''}",
        "",
    ]
    return "\n".join(lines)


def plain(result: Result) -> bool:
    """Whether the verdict can be stated without a reservation."""
    return result.passes or result.verdict != "PASS"


def decision(result: Result) -> str:
    """The verdict in words."""
    return DECISIONS[result.verdict] if plain(result) else "Pass, with a reservation"


def remarks(result: Result) -> list[str]:
    """Reservations of a PASS, and packages other than froc whose code measured."""
    reserved = [] if plain(result) else [f"no plain pass: {reason}" for reason in result.reservations]
    foreign = provenance.sentences(result.report.get("plugins", []))
    return reserved + [f"measured with code that is not froc's: {line}" for line in foreign]


def body(result: Result) -> list[str]:
    """Claim, table of risks, limits and the command, as lines of Markdown."""
    report, row = result.report, reported(result)
    sentence = claim(report, report["certificate"])
    lines = [sentence if result.passes else f"Could not be claimed: “{sentence}”", ""]
    lines += [] if plain(result) else [f"The report says PASS, but {reason}.\n" for reason in result.reservations]
    foreign = provenance.sentences(report.get("plugins", []))
    lines += [f"Measured with code that is not froc's: {code(line, 200)}.\n" for line in foreign]
    untested = (
        "No configuration was certified." if report["certificate"]["candidates"] else "No configuration was tested."
    )
    lines += _table(report, row) if row else [untested, ""]
    lines += [
        f"Model: {f'`{result.tree}`' if result.tree else 'none is covered'}, from {code(report['model']['base']['name'])}; "
        f"task {code(report['plan']['task']['name'])}.",
        "",
        "What this does not show:",
        "",
        *(f"- {LIMITS[name]}" for name in report["limits"]),
        "",
        f"Check it: `froc audit verify {report['name']}.froc-audit --key SIGNER.pub`",
    ]
    return lines


def _table(report: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    budget = report["certificate"]["budget"]
    lines = ["| risk | measured | at most | budget |", "| --- | ---: | ---: | ---: |"]
    for risk in ordered(budget):
        bound = row["cur"][risk]["simultaneous"]
        lines.append(f"| {risk} | {measured(row['empirical'][risk])} | {up(bound)} | {percent(budget[risk])} |")
    above = any(Decimal(row["cur"][risk]["simultaneous"]) > Decimal(budget[risk]) for risk in budget)
    return [*lines, "", ABOVE, ""] if row["certified"] and above else [*lines, ""]


def code(text: str, most: int = 80) -> str:
    r"""A text in a Markdown code span: visible characters, cut to `most`, without anything that ends the span.

    >>> code("a`b")
    '`a\\u0060b`'
    """
    return f"`{cut(text, most).strip().replace('`', chr(92) + 'u0060') or '-'}`"
