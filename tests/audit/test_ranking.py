"""The order of candidates against the log, by hand."""

from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import ranking
from froc.errors import VerificationError

PAIR = ("forgetting", "utility")


def trial(config: str, *means: str, status: str = "complete", risks: tuple[str, ...] = PAIR, **variants: Any) -> Any:
    """A line of the log, with search means of risks."""
    others = [
        SimpleNamespace(config=name, search=dict(zip(PAIR, pair, strict=True))) for name, pair in variants.items()
    ]
    return SimpleNamespace(config=config, status=status, search=dict(zip(risks, means, strict=True)), variants=others)


def seal(*configs: str, weights: tuple[float, ...] = (1.0, 1 / 2, 1 / 3)) -> Any:
    return SimpleNamespace(
        candidates=[SimpleNamespace(config=name, weight=w) for name, w in zip(configs, weights, strict=False)]
    )


LOG = [trial("a", "0.1", "0.2"), trial("b", "0.2", "0.1"), trial("c", "0.3", "0.3", v=("0.05", "0.05"))]


@pytest.mark.parametrize("order", [("a", "b", "c"), ("b", "a", "c"), ("v", "a", "b"), ("a",), ()])
def test_what_lost_less_under_every_risk_comes_first(order: tuple[str, ...]) -> None:
    assert ranking.check(seal(*order), LOG, PAIR) == []


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (("c", "a", "b"), "c stands before a, which lost less under every risk"),
        (("a", "b", "v"), "a stands before v"),
        (("b", "c", "a"), "c stands before a"),
    ],
)
def test_another_order_is_refused(order: tuple[str, ...], message: str) -> None:
    with pytest.raises(VerificationError, match=f"^seal-rank: {message}"):
        ranking.check(seal(*order), LOG, PAIR)


def test_weights_are_one_over_the_rank() -> None:
    with pytest.raises(VerificationError, match=r"seal-rank-weights: the weight of b is not 1 / 2"):
        ranking.check(seal("a", "b", weights=(1.0, 1.0)), LOG, PAIR)


def test_a_candidate_has_a_mean_of_all_that_the_search_measured() -> None:
    """Those of trials that were not completed do not count."""
    log = [*LOG, trial("d", "0.1", risks=("utility",)), trial("e", "0.1", "0.1", status="pruned")]
    for config in ("d", "e", "nobody"):
        with pytest.raises(VerificationError, match=f"seal-rank-means: the log gives no forgetting of {config} "):
            ranking.check(seal("a", config), log, PAIR)


def test_a_risk_that_no_trial_measured_leaves_the_order_open() -> None:
    """Attacks are measured later; what is not known cannot be out of order, and is named."""
    assert ranking.check(seal("c", "a", "b"), LOG, (*PAIR, "jailbreak")) == ["jailbreak"]
