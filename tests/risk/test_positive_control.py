"""The positive control: what was not there cannot be certified to be gone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta

from froc.certification.certify import certify as by_log
from froc.errors import InputError
from froc.loss_table import SCHEMA
from froc.measuring.measurement import measurement, written
from froc.measuring.metric import Metric
from froc.plugins import find, names
from froc.risk.certificate import certify
from froc.risk.claim import Candidate, Claim, evidence_from_matrix
from froc.risk.positive_control import (
    BASE,
    FAULTS,
    Control,
    Kind,
    built_in,
    complaint,
    document,
    kind_of,
    metric_of,
    vacuous,
)
from froc.search.settings import Settings

BUDGET = {"forgetting": 0.1, "utility": 0.1}
KINDS: dict[str, Kind] = {"forgetting": "exceeds", "utility": "ceiling"}


def claim(bound: str = "betting", **more: Any) -> Claim:
    options: dict[str, Any] = {
        "budget": BUDGET,
        "bound": dict.fromkeys(BUDGET, bound),
        "unit": dict.fromkeys(BUDGET, "query"),
    }
    return Claim(**{**options, **more})


def table(config: str, shares: dict[str, float], n: int = 200) -> pl.DataFrame:
    """0-1 losses: the stated share of them is 1."""
    rows = [
        (config, risk, "m", "calibration", f"{risk}{i}", f"{risk}{i}", 1000 * int(i < round(share * n)))
        for risk, share in shares.items()
        for i in range(n)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def made(forgetting: float, utility: float, bound: str = "betting", n: int = 200) -> dict[str, Any]:
    """The certificate of a candidate without any loss, where the base model lacks so much."""
    control = Control(table(BASE, {"forgetting": forgetting, "utility": utility}, n), KINDS)
    good = table("c0000", {"forgetting": 0.0, "utility": 0.0}, n)
    return certify(good, [Candidate("c0000", "npo", {}, 1.0)], claim(bound), control=control)


def test_what_was_there_is_certified_to_be_gone() -> None:
    result = made(0.03, 0.05)
    assert result["chosen"] == "c0000"
    base = result["base"]
    assert isinstance(base, dict)
    assert base["forgetting"]["before"] == 0.97
    assert base["utility"]["before"] == 0.95
    assert 0.9 < base["forgetting"]["lower"] < 0.97
    assert not vacuous(base)


@pytest.mark.parametrize(
    ("forgetting", "utility", "unshown"),
    [
        (1.0, 1.0, ["forgetting", "utility"]),  # a model that knows nothing
        (0.95, 0.0, ["forgetting"]),  # the answers were hardly to be had before
        (0.0, 0.93, ["utility"]),  # nothing much could be lost
        (0.89, 0.0, ["forgetting"]),  # above the budget as measured, and not surely
    ],
)
def test_a_loss_of_zero_certifies_nothing_where_nothing_was(
    forgetting: float, utility: float, unshown: list[str]
) -> None:
    """Every p-value is as small as can be: only the control stands between these models and a certificate."""
    result = made(forgetting, utility)
    assert max(row["p_value"] for row in result["candidates"]) < 1e-6
    assert vacuous(result["base"]) == unshown
    assert result["certified"] == []
    assert result["chosen"] is None
    assert str(result["reason"]).startswith(f"NOT ESTABLISHED for {' and '.join(unshown)}")
    assert result["closest"]["config"] == "c0000"
    assert not any(row["certified"] for row in result["candidates"])


def test_without_rows_of_the_base_a_certificate_is_as_it_was() -> None:
    good = table("c0000", {"forgetting": 0.0, "utility": 0.0})
    certificate = certify(good, [Candidate("c0000", "npo", {}, 1.0)], claim())
    assert "base" not in certificate
    assert certificate["chosen"] == "c0000"


def test_the_lower_bound_is_the_exact_one_for_losses_of_0_and_1() -> None:
    """Clopper and Pearson at half the level, since two risks are shown together."""
    result = made(0.04, 0.2, "binomial")["base"]
    for risk, lacking in (("forgetting", 8), ("utility", 40)):
        exact = 1 - beta.ppf(1 - 0.05, lacking + 1, 200 - lacking)
        assert result[risk]["lower"] == pytest.approx(exact, abs=3e-6)


@pytest.mark.slow
def test_lower_bounds_hold_as_often_as_they_say() -> None:
    """A base model that shows exactly the budget is taken for one that shows more in at most delta of all draws."""
    rng, wrong, draws = np.random.default_rng(5), 0, 400
    for _ in range(draws):
        absent = rng.random(150) < 0.9
        rows = [
            (BASE, r, "m", "calibration", f"{r}{i}", f"{r}{i}", 1000 * int(a))
            for r in BUDGET
            for i, a in enumerate(absent)
        ]
        losses = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        from froc.loss_table import matrix

        units = {
            r: evidence_from_matrix(matrix(losses, risk=r, split="calibration", configs=[BASE], unit="query").values)
            for r in BUDGET
        }
        wrong += not vacuous(document(KINDS, units, claim("binomial")))
    # each risk alone is wrong with probability delta / 2 at most; both see the same draw here
    assert wrong / draws <= 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


def test_a_weighted_sum_needs_the_base_to_exceed_it() -> None:
    tested_claim = claim(budget={"combined": 0.2}, weights={"forgetting": 0.5, "utility": 0.5})
    good = table("c0000", {"forgetting": 0.0, "utility": 0.0})
    for lacking, shown in ((0.0, True), (0.7, False)):
        control = Control(table(BASE, {"forgetting": lacking, "utility": 0.0}), KINDS)
        certificate = certify(good, [Candidate("c0000", "npo", {}, 1.0)], tested_claim, control=control)
        assert (certificate["chosen"] == "c0000") is shown
        assert certificate["base"]["combined"]["before"] == pytest.approx(0.5 * (1 - lacking))


def test_the_lower_bound_of_a_weighted_sum_is_rounded_down() -> None:
    """Of the forgetting risk alone, since the base model loses no utility against itself."""
    third = claim(budget={"combined": 0.2}, weights={"forgetting": 1 / 3, "utility": 0.5})
    absences = {
        risk: evidence_from_matrix(np.repeat([[0, 1000]], [180, 20], axis=1).astype(np.int16)) for risk in BUDGET
    }
    base = document(KINDS, absences, third)
    exactly = base["forgetting"]["lower"] / 3
    assert exactly - 1e-6 < base["combined"]["lower"] <= exactly
    assert base["combined"]["lower"] == pytest.approx(exactly, abs=1e-6)
    assert base["combined"]["before"] == 0.3


def test_a_weighted_sum_of_losses_alone_needs_scores_that_could_be_lost() -> None:
    weights = {"flips": 0.5, "utility": 0.5}
    tested_claim = Claim(
        budget={"combined": 0.2},
        weights=weights,
        bound=dict.fromkeys(weights, "betting"),
        unit=dict.fromkeys(weights, "query"),
    )
    good = table("c0000", dict.fromkeys(weights, 0.0))
    for lacking, shown in ((0.1, True), (0.9, False)):
        control = Control(table(BASE, dict.fromkeys(weights, lacking)), dict.fromkeys(weights, "ceiling"))
        certificate = certify(good, [Candidate("c0000", "npo", {}, 1.0)], tested_claim, control=control)
        assert certificate["base"]["combined"]["control"] == "ceiling"
        assert (certificate["chosen"] == "c0000") is shown


@pytest.mark.parametrize(
    ("risk", "text", "kind"),
    [
        ("forgetting", "extraction_strength", "exceeds"),
        ("quantized", "extraction_strength@quantization+quantization:bits=8", "exceeds"),
        ("options", "multiple_choice", "exceeds"),
        ("privacy", "membership", "exceeds"),
        ("privacy", "membership:score=loss", "exceeds"),
        ("overforgetting", "membership:over=1", "none"),
        ("overforgetting", "membership:score=zlib,over=1", "none"),
        ("utility", "extraction_strength", "ceiling"),
        ("flips", "negative_flips/utility", "ceiling"),
        ("bits", "extraction_strength@quantization:bits=4/utility", "ceiling"),
        ("refusal", "refusal/utility", "none"),
        ("gibberish", "gibberish", "none"),
        ("earlier", "extraction_strength/earlier", "none"),
        ("earlier-2", "extraction_strength/earlier-2", "none"),
        # under these two names nothing but knowledge is measured, whatever metric they are given
        ("forgetting", "gibberish", "exceeds"),
        ("forgetting", "membership:over=1", "exceeds"),
        ("utility", "refusal", "ceiling"),
    ],
)
def test_what_the_base_must_show(risk: str, text: str, kind: str) -> None:
    assert kind_of(risk, written(risk, measurement(f"{text}/utility" if risk == "utility" else text))) == kind


def test_metrics_of_faults_are_the_ones_that_say_so() -> None:
    """The verifier goes by names, since it must not import what measures."""
    text = {name for name in names(Metric) if find(Metric, name).finds == "faults"}
    assert text == set(FAULTS)
    assert all(built_in(metric_of(name)) for name in names(Metric))
    assert not built_in("shady")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"control": "exceeds"}, "shows 0.084 (at least 0.051), which does not exceed the budget of 0.1"),
        ({"control": "ceiling"}, "scores 0.084 (at least 0.051), so that hardly more than its budget of 0.1 could be lost"),
        ({"control": "ceiling", "relative": True}, "so that there is nothing which 0.1 could be a share of"),
    ],
)  # fmt: skip
def test_a_complaint_says_what_the_base_model_lacks(shown: dict[str, Any], words: str) -> None:
    text = complaint("r", {"before": 0.0837, "lower": 0.0512, **shown}, 0.1)
    assert words in text
    assert text.startswith("r: the base model itself ")
    assert "--model" in text


def logs(folder: Path, **means: float) -> dict[str, Path]:
    """OpenUnlearning logs of models whose answers score so much on forget and retain queries."""
    result = {}
    for name, mean in means.items():
        result[name] = folder / name
        result[name].mkdir()
        second = 0.95 if name == "unlearned" else mean
        scores = {"forget_Q_A_ROUGE": mean, "retain_Q_A_ROUGE": second}
        document = {
            measure: {"agg_value": value, "value_by_index": {str(i): {"rougeL_recall": value} for i in range(120)}}
            for measure, value in scores.items()
        }
        (result[name] / "TOFU_EVAL.json").write_text(json.dumps(document))
    return result


@pytest.mark.parametrize(
    ("utility", "knew", "verdict"),
    [
        ("base-retain_Q_A_ROUGE", 0.95, "certified"),
        ("base-retain_Q_A_ROUGE", 0.04, "forgetting and utility"),
        ("1-retain_Q_A_ROUGE", 0.95, "certified"),
        # what is kept is held to an absolute score, which asks nothing of the base
        ("1-retain_Q_A_ROUGE", 0.04, "forgetting"),
    ],
)
def test_a_log_of_the_base_model_is_its_control(tmp_path: Path, utility: str, knew: float, verdict: str) -> None:
    paths = logs(tmp_path, unlearned=0.02, base=knew)
    rules = {"forgetting": "forget_Q_A_ROUGE", "utility": utility}
    certificate = by_log(
        paths["unlearned"], 0.1, format="open-unlearning", loss=rules, base=paths["base"], named_beforehand=True
    )
    assert certificate.base["forgetting"]["before"] == knew
    if verdict == "certified":
        assert certificate.chosen
        assert any(f"forgetting: {knew:.3f} before" in line for line in certificate.sentences())
    else:
        assert certificate.certified == []
        assert certificate.reason.startswith(f"NOT ESTABLISHED for {verdict}, so nothing")


def test_a_base_log_of_other_queries_says_nothing_about_before(tmp_path: Path) -> None:
    paths = logs(tmp_path, unlearned=0.02, base=0.95)
    document = json.loads((paths["base"] / "TOFU_EVAL.json").read_text())
    del document["forget_Q_A_ROUGE"]
    (paths["base"] / "TOFU_EVAL.json").write_text(json.dumps(document))
    rules = {"forgetting": "forget_Q_A_ROUGE", "utility": "base-retain_Q_A_ROUGE"}
    certificate = by_log(
        paths["unlearned"], 0.1, format="open-unlearning", loss=rules, base=paths["base"], named_beforehand=True
    )
    assert certificate.base == {}
    assert any("nothing is said about before" in line for line in certificate.document["warnings"])


@pytest.mark.parametrize("metric", ["gibberish", "refusal", "membership:over=1"])
def test_forgetting_is_measured_by_what_is_known(metric: str) -> None:
    """The base model has no gibberish to lose: certified at once, and a page that says its answers could not be had."""
    for risk in ("forgetting", "utility"):
        with pytest.raises(InputError, match=f"{risk} is about what the model knows, .*give it a name of its own"):
            Settings({"forgetting": 0.3, "utility": 0.3}, metrics={risk: metric}).check()


def test_a_candidate_is_not_called_base(tmp_path: Path) -> None:
    """In a bundle's losses.csv rows of `base` are what the base model lacks: 0 where it knows all."""
    frame = pl.concat([table("c0000", {"forgetting": 0.9}), table(BASE, {"forgetting": 0.0})])
    for name in (BASE, " Base "):
        path = tmp_path / "losses.csv"
        frame.with_columns(config=pl.col("config").replace(BASE, name)).write_csv(path)
        with pytest.raises(InputError, match=r"losses.csv: row 201: a configuration is called base"):
            by_log(path, 0.3, scale="thousandths")


def test_a_table_without_the_base_says_so(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    table("c0000", {"forgetting": 0.0}).write_csv(path)
    certificate = by_log(path, 0.3, scale="thousandths")
    assert certificate.chosen == "c0000"
    assert any("nothing here shows what the base model had before" in line for line in certificate.document["warnings"])
