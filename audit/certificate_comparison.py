"""The signed certificate against the one that follows from the losses."""

from collections.abc import Mapping
from typing import Any

from froc.audit.cross_checks import same
from froc.errors import VerificationError


def refuse_other(signed: Any, derived: Mapping[str, Any]) -> None:
    """VerificationError where they differ. Numbers are compared before what follows from them, so that the error names the origin."""
    if not isinstance(signed, dict) or not isinstance(signed.get("candidates"), list):
        raise VerificationError("report-shape", "the report holds no certificate")
    if not same(_numbers(signed), _numbers(derived)):
        raise VerificationError("statistics-differ", "the numbers are not those that follow from the losses")
    if not (same(signed.get("certified"), derived["certified"]) and same(signed["candidates"], derived["candidates"])):
        raise VerificationError(
            "feasible-differ", "the certified configurations are not those that follow from the losses"
        )
    if signed.get("chosen") != derived["chosen"]:
        raise VerificationError("selected-differ", "the chosen configuration is not the one that the rule selects")
    if not same(signed, derived):
        raise VerificationError("statistics-differ", "the certificate is not the one that follows from the losses")


def _numbers(certificate: Mapping[str, Any]) -> list[Any]:
    rows = [row if isinstance(row, dict) else {} for row in certificate["candidates"]]
    whole = [
        certificate.get(part)
        for part in ("base", "budget", "confidence", "level", "n", "opening", "population", "radius", "sequential")
    ]
    return [*whole, *({name: value for name, value in row.items() if name != "certified"} for row in rows)]
