"""The appendix of a page: the landscape of all trials and its front, and attacks by what they measure."""

from decimal import Decimal

import pytest

from froc.audit.rendering import appendix
from froc.fidelity import MEANINGS
from froc.measuring.named_risks import KNOWN
from tests.audit import hard
from tests.audit.conftest import Made
from tests.audit.test_meanings import with_metrics


@pytest.mark.parametrize(("most", "end"), [("0", "0.1"), ("0.1", "0.1"), ("0.1001", "0.2"), ("1", "1")])
def test_a_landscape_ends_at_the_next_tenth_and_its_cells_are_named_by_their_ranges(most: str, end: str) -> None:
    assert appendix._end(Decimal(most)) == Decimal(end)
    assert appendix._span(3, Decimal("0.5")) == "15% to 20%"


def test_the_best_are_those_that_nothing_beats() -> None:
    points = [("0.3", "0.1"), ("0.1", "0.4"), ("0.2", "0.4"), ("0.2", "0.2"), ("0.4", "0.1"), ("0.1", "0.5")]
    best = [("0.1", "0.4"), ("0.2", "0.2"), ("0.3", "0.1")]
    assert appendix._best([(Decimal(u), Decimal(f)) for u, f in points]) == [(Decimal(u), Decimal(f)) for u, f in best]


@pytest.mark.parametrize(("points", "longer"), [(3, 0), (20, 0), (25, 5)])
def test_only_points_of_a_front_beyond_twenty_are_left_out(
    points: int, longer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, facts = hard.made()
    budget = {risk: Decimal(alpha) for risk, alpha in page["certificate"]["budget"].items()}
    zero = Decimal(0)
    monkeypatch.setattr(appendix, "_best", lambda _: [(zero, zero)] * points)
    landscape = appendix._landscape(facts, page, budget)
    assert landscape is not None
    assert (len(landscape["line"]), landscape["longer"]) == (points - longer, longer)


def test_a_known_name_over_another_measurement_is_no_attack_that_was_run(good: Made) -> None:
    report = with_metrics(
        good, jailbreak="extraction_strength", relearning=KNOWN["relearning"].of, mine=KNOWN["drift"].of
    )
    rows = [(row["name"], row["says"], row["run"]) for row in appendix._attacks(report, None, True, tuple(KNOWN))]
    of = {
        name: [(says, run) for shown, says, run in rows if shown == name]
        for name in ("jailbreak", "relearning", "drift", "forgetting", "mine")
    }
    assert of["jailbreak"] == [(KNOWN["jailbreak"].says, ""), ("defined for this report", "run, on no configuration")]
    assert of["relearning"] == [(KNOWN["relearning"].says, "run, on no configuration")]
    assert of["drift"] == [(KNOWN["drift"].says, "run as mine, on no configuration")]
    assert len(of["forgetting"]) == 1
    assert of["mine"] == []


def test_the_appendix_says_how_true_methods_and_measurements_are(good: Made) -> None:
    """Tags of the plan, the strongest first, with what each means; nothing where an older plan does not say it."""
    plan = good.verify().facts.plan
    assert appendix._fidelity(plan) == []
    tags = {"metric rouge_l": "code-checked", "method srmu": "reading", "method npo": "code-checked"}
    lines = appendix._fidelity(plan.model_copy(update={"fidelity": tags}))
    assert [(line["tag"], line["names"]) for line in lines] == [
        ("code-checked", "method npo, metric rouge_l"),
        ("reading", "method srmu"),
    ]
    assert [line["meaning"] for line in lines] == [MEANINGS["code-checked"], MEANINGS["reading"]]
