"""Reports in formats of other tools: one file per format, written only from a bundle that was just verified.

`write(result, context)` of each file returns the text. None replaces the bundle: each names the report by the SHA-256
of its signed bytes, and says what it does not show.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from froc.audit.keys import PrivateKey
from froc.audit.verification import Result
from froc.errors import InputError

FORMATS: Mapping[str, str] = {
    "page": "report.html with a verification line, for whoever verified",
    "markdown": "summary for a pull request",
    "model-card": "section of a Hugging Face model card, with results in its header",
    "cyclonedx": "CycloneDX 1.6 ML-BOM with declarations",
    "svr": "in-toto Simple Verification Result, signed by who verified",
}


@dataclass(frozen=True)
class ExportContext:
    """What the user provides beside the bundle.

    when: RFC 3339 time of verification.
    signer: signs formats that require a signature.
    url: where the report can be obtained.
    """

    when: str
    signer: PrivateKey | None = None
    url: str | None = None


def write(name: str, result: Result, context: ExportContext) -> str:
    """A verified report in a format. InputError for an unknown format, or one that does not fit this report."""
    if name not in FORMATS:
        raise InputError(f"no format is called {name!r}; there are: {', '.join(FORMATS)}")
    text: str = import_module(f"froc.audit.exports.{name.replace('-', '_')}").write(result, context)
    return text


def reported(result: Result) -> Mapping[str, Any] | None:
    """The reported configuration's row of the certificate; None if none was tested."""
    rows = result.report["certificate"]["candidates"]
    return next((row for row in rows if row["config"] == result.report["config"]), None)


def refuse_no_model(result: Result, export_name: str) -> None:
    """InputError where the report covers no model, so that nothing may be stated about one."""
    if not result.facts.files:
        raise InputError(
            f"this report covers no model, so there is none that {export_name} could be about; export markdown"
        )


def confidence(result: Result) -> str | None:
    """The confidence of the bounds as a decimal; None where the queries were opened more often than planned, so that none holds."""
    if result.report["opening"] > result.facts.plan.openings:
        return None
    return str(result.report["certificate"]["confidence"])
