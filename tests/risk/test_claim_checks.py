"""Claims that cannot be certified are refused before anything is computed."""

from typing import Any

import pytest

from froc.errors import InputError
from froc.risk.claim import Claim
from froc.risk.claim_checks import refuse_unknown

RISKS = ("forgetting", "utility")


def claim(**fields: Any) -> Claim:
    options: dict[str, Any] = {
        "budget": dict.fromkeys(RISKS, 0.1),
        "bound": dict.fromkeys(RISKS, "betting"),
        "unit": dict.fromkeys(RISKS, "query"),
    }
    return Claim(**{**options, **fields})


CENSUS: dict[str, Any] = {"population": {"utility": "census"}, "bound": {"forgetting": "betting", "utility": "census"}}
WEIGHTS: dict[str, Any] = {"budget": {"combined": 0.2}, "weights": dict.fromkeys(RISKS, 0.5)}


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"relative": ("utility",)}, {"sequential": True}, {"radius": 0.05}, CENSUS, WEIGHTS,
        WEIGHTS | {"weights": {"forgetting": 0.01, "utility": 0.99}},
    ],
    ids=str,
)  # fmt: skip
def test_what_can_be_certified_passes(fields: dict[str, Any]) -> None:
    refuse_unknown(claim(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"relative": ("utility",), "sequential": True}, "--relative utility is offered for queries that are drawn"),
        ({"relative": ("utility",)} | CENSUS, "leave --sequential and --population census out"),
        ({"relative": ("utility",), "bound": {"forgetting": "betting", "utility": "binomial"}}, "needs 0-1 losses"),
        ({"relative": ("earlier",)}, "only single risks with budgets of their own have relative ones"),
        (
            {"relative": ("utility",), "radius": 0.05},
            "what a shift of the queries does to a ratio of means is not known",
        ),
        (WEIGHTS | {"weights": {"forgetting": 0.0, "utility": 0.5}}, r"weight forgetting=0 is outside \(0, 1\]"),
        (WEIGHTS | {"weights": {"forgetting": 1.5, "utility": 0.5}}, r"weight forgetting=1.5 is outside \(0, 1\]"),
        ({"openings": 0}, "counted from 1"),
        ({"opening": 0}, "counted from 1"),
    ],
)
def test_what_cannot_be_certified_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse_unknown(claim(**fields))
