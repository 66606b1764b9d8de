"""A summary for a pull request, in Markdown that no name can break out of."""

from collections.abc import Mapping
from typing import Any

from froc.audit.exports import Given, reported
from froc.audit.rendering.numbers import cut, measured, percent, short, up
from froc.audit.rendering.summary import claim, ordered
from froc.audit.rendering.words import DECISIONS, LIMITS
from froc.audit.verification import Result

MARKS = {"PASS": "✅", "FAIL": "❌", "NOT_ESTABLISHED": "❔"}
RESERVED = "⚠️"


def write(found: Result, given: Given) -> str:
    """Decision, risks, limits and how to check."""
    report = found.report
    lines = [
        f"### {MARKS[report['verdict']] if plain(found) else RESERVED} Unlearning audit {report['name']}: {decision(found)}",
        "",
        f"Verified {given.when} with key `{short(found.fingerprint)}`; "
        f"{'model files match' if found.model_checked else 'the model was not compared'}; losses {found.assurance.replace('_', '-')}.",
        "",
        *body(found),
        "",
        f"Report `sha256:{found.payload}`{f', {given.url}' if given.url else ''}",
        "",
    ]
    return "\n".join(lines)


def plain(found: Result) -> bool:
    """Whether the verdict can be repeated as it is."""
    return found.passes or found.verdict != "PASS"


def decision(found: Result) -> str:
    """The verdict in words."""
    return DECISIONS[found.verdict] if plain(found) else "Pass, with a reservation"


def body(found: Result) -> list[str]:
    """Claim, table of risks, limits and the command, as lines of Markdown."""
    report, row = found.report, reported(found)
    said = claim(report, report["certificate"])
    lines = [said if found.passes else f"Could not be claimed: “{said}”", ""]
    lines += [] if plain(found) else [f"The report says PASS, but {reason}.\n" for reason in found.reservations]
    lines += _table(report, row) if row else ["No configuration was tested.", ""]
    lines += [
        f"Model: {f'`{found.tree}`' if found.tree else 'none is covered'}, from {code(report['model']['base']['name'])}; "
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
    return [*lines, ""]


def code(text: str, most: int = 80) -> str:
    """A text that Markdown shows as it is: in a code span, visible, cut, without what would end the span."""
    return f"`{cut(text, most).strip().replace('`', chr(92) + 'u0060') or '-'}`"
