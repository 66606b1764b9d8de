"""Losses measured again: the draw, the bound, and a statement that cannot say more than was found."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.audit import keys, redraw, reexecution, writing
from froc.errors import InputError, VerificationError
from froc.search.machine import Machine
from froc.search.rebuilding import machine_of

BY_UNIT = frozenset({"utility"})
"""Risks of the made runs that are means over groups."""


def _tail(share: Fraction, rows: int, differed: int) -> Fraction:
    """Probability that at most so many of the drawn rows differ."""
    return sum((comb(rows, k) * share**k * (1 - share) ** (rows - k) for k in range(differed + 1)), start=Fraction(0))


def losses(made: Any) -> bytes:
    return bytes((made.bundle / "losses.csv").read_bytes())


def found_again(made: Any, lines: list[int]) -> pl.DataFrame:
    return redraw.table(losses(made), lines).rename({"signed": "loss"})


def predicate(
    made: Any, now: Any, differed: int = 0, config: str | None = None, seed: int = 7, rows: int = 99
) -> dict[str, Any]:
    """What somebody with the key `other` says after measuring rows again; trained again, the sealed weights came of it."""
    data = losses(made)
    sealed = json.loads((made.bundle / "seal.json").read_text())["candidates"][0]
    model = reexecution.of_model(data, seed, sealed["config"], BY_UNIT, sealed["weights_digest"], True, None, 0)
    return reexecution.document(
        data, seed, rows, redraw.Scope(None if config is None else ("base", config), BY_UNIT), {("c0001", "forgetting"): (differed, 3)} if differed else {}, signed=writing.stamped(now), role="auditor",
        keyid=keys.load_public(made.key.with_name("other.pub")).keyid, harness={"name": "froc", "version": "0.1.0"},
        environment={"python": "3.11.2"}, model=model if config is None else None,
    )  # fmt: skip


def put(made: Any, statement: dict[str, Any], key: str = "other", payload: str | None = None) -> None:
    """Sign it into the bundle."""
    signer = keys.load_signer(made.key.with_name(key))
    data = reexecution.sign(payload or made.verify(model=None).payload, statement, signer)
    (made.bundle / reexecution.NAME).write_bytes(data)


def verify(made: Any, **more: Any) -> Any:
    return made.verify(keys=[made.public, made.key.with_name("other.pub")], **more)


def test_a_seed_draws_the_same_rows_whatever_their_losses(good: Any) -> None:
    data = losses(good)
    lines = redraw.draw(data, 7, 99)
    # of each of four configurations under two risks
    assert len(set(lines)) == 8 * 99
    assert lines == sorted(lines)
    assert min(lines) >= 2
    assert lines == redraw.draw(data.replace(b",1000\n", b",0\n"), 7, 99)
    assert lines != redraw.draw(data, 8, 99)
    assert set(redraw.draw(data, 7, 59)) < set(lines)
    assert redraw.draw(data, 7, 10**6) == list(range(2, data.count(b"\n") + 1))
    text = data.decode().split("\n")
    assert all(text[line - 1].startswith("c0001,") for line in redraw.draw(data, 7, 299, redraw.Scope(("c0001",))))
    counts = redraw.table(data, redraw.draw(data, 1, 100)).group_by("config", "risk").len()["len"].to_list()
    assert counts == [100] * 8


def test_bounds_hold_for_all_groups_together(good: Any) -> None:
    """Bonferroni over the groups that are not measured whole, in exact arithmetic; the worst is the statement's."""
    data = losses(good)
    counted = redraw.counted(data, 7, 99, redraw.EVERYTHING, {("c0001", "forgetting"): (2, 5)})
    assert len(counted["groups"]) == 8
    assert counted["differed"] == 2
    assert counted["largest"] == 5
    for group in counted["groups"]:
        share, step, differed = Fraction(group["bound"]), Fraction(1, 10**6), group["differed"]
        level = Fraction(5, 100) / 8
        assert _tail(share, 99, differed) <= level < _tail(share - 2 * step, 99, differed)
    assert counted["bound"] == max((group["bound"] for group in counted["groups"]), key=float)
    whole = redraw.counted(data, 7, 10**6, redraw.EVERYTHING, {("c0001", "forgetting"): (2, 5)})
    assert float(whole["bound"]) == pytest.approx(2 / 240, abs=1e-6)


def test_a_lie_about_one_risk_of_one_configuration_is_found(good: Any) -> None:
    """An owner who changes a tenth of one group's losses is met by every seed; a draw from all rows together misses most."""
    data = losses(good)
    rows = redraw.table(data, redraw.draw(data, 0, 10**6))
    changed = rows.filter(pl.col("config") == "c0001", pl.col("risk") == "forgetting").head(24)["query"].to_list()

    def differed(lines: list[int]) -> int:
        drawn = redraw.table(data, lines)
        honest = drawn.rename({"signed": "loss"}).with_columns(
            loss=pl.when(
                (pl.col("config") == "c0001") & (pl.col("risk") == "forgetting") & pl.col("query").is_in(changed)
            ).then((pl.col("loss").cast(pl.Int64) + 500) % 1001).otherwise(pl.col("loss").cast(pl.Int64))
        )  # fmt: skip
        return sum(count for count, _ in redraw.compare(drawn, honest).values())

    assert all(differed(redraw.draw(data, seed, 59)) for seed in range(40))
    missed = sum(not differed(redraw.draw_together(data, seed, 59)) for seed in range(40))
    assert missed > 10


@pytest.mark.parametrize(("rows", "differed"), [(299, 0), (59, 0), (598, 0), (299, 1), (299, 17), (20, 20)])
def test_the_bound_is_the_exact_binomial_one(rows: int, differed: int) -> None:
    bound, step = Fraction(redraw.bound(differed, rows, 10**6)), Fraction(1, 10**6)
    if differed == rows:
        assert bound == 1
        return
    assert _tail(bound, rows, differed) <= Fraction(5, 100) < _tail(bound - 2 * step, rows, differed)


def test_what_the_numbers_of_rows_are_said_to_show() -> None:
    assert float(redraw.bound(0, 299, 10**6)) <= 0.01 < float(redraw.bound(0, 298, 10**6))
    assert float(redraw.bound(0, 59, 10**6)) <= 0.05
    assert float(redraw.bound(0, 598, 10**6)) <= 0.005
    assert (redraw.bound(3, 100, 100), redraw.bound(0, 100, 100)) == ("0.03", "0.0")


def test_rows_are_compared_to_the_thousandth(good: Any) -> None:
    lines = redraw.draw(losses(good), 7, 50)
    drawn, again = redraw.table(losses(good), lines), found_again(good, lines)
    none = dict.fromkeys(redraw.compare(drawn, again), (0, 0))
    assert len(none) == 8
    assert redraw.compare(drawn, again) == none
    query, config = again.select("query", "config").row(0)
    first = (pl.col("query") == query) & (pl.col("config") == config)
    lowered = again.with_columns(loss=pl.when(first).then(pl.col("loss").cast(pl.Int64) - 4).otherwise(pl.col("loss")))
    changed = (config, again["risk"][0])
    assert redraw.compare(drawn, lowered) == none | {changed: (1, 4)}
    assert redraw.compare(drawn, again.tail(len(again) - 1)) == none | {changed: (1, 1000)}
    assert redraw.compare(drawn, again.head(0)) == dict.fromkeys(none, (50, 1000))


def test_a_report_is_reproduced_by_somebody_else(good: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    before = made.digests()
    put(made, predicate(made, now))
    result = verify(made)
    assert result.assurance == "reproduced"
    assert result.reexecution.independent
    assert (
        "636 of 1200 losses, or groups of them, drawn by seed 7, 0 differed; at most 4.33% of the losses of any configuration under any risk differ with 95% confidence"
        in result.checks[-1].seen
    )
    assert {name: made.digests()[name] for name in before} == before
    assert good.verify().assurance == "self_attested"


def test_a_report_is_reproduced_where_enough_rows_were_drawn(good: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    for rows, share, holds in (
        (85, 0.05, False),
        (86, 0.05, True),
        (99, 0.01, False),
        (240, 0.01, True),
        (1, 0.05, False),
    ):
        (made.bundle / reexecution.NAME).unlink(missing_ok=True)
        put(made, predicate(made, now, rows=rows))
        level = {level.name: level for level in verify(made, share=share).levels}["L5"]
        assert level.holds is holds
        assert ("draw more rows" in level.words) is not holds


def test_a_configuration_that_cannot_be_trained_again_reproduces_nothing(good: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    statement = predicate(made, now)
    config = statement["model"]["config"]
    statement["model"] = reexecution.of_model(losses(made), 7, config, BY_UNIT, None, False, None, 0, trained=False)
    put(made, statement)
    result = verify(made)
    assert f"{config} could not be trained again" in result.checks[-1].seen
    assert "measured itself" not in result.checks[-1].seen
    assert not {level.name: level.holds for level in result.levels}["L5"]


def test_a_model_measured_alone_reproduces_no_report_of_several_candidates(good: Any, copy: Any, now: Any) -> None:
    """Whether it is certified depends on the others' losses, too; the base model's are drawn in any case."""
    made = copy(good)
    put(made, predicate(made, now, config="c0001"))
    result = verify(made)
    assert {(group.config, group.risk) for group in result.reexecution.outcome.groups} == {
        (config, risk) for config in ("base", "c0001") for risk in ("forgetting", "utility")
    }
    assert result.reexecution.outcome.of == 2 * (240 + 60)
    assert result.assurance == "self_attested"
    assert "other candidates were not measured again" in result.levels[-1].words
    assert "of the model, or of the base model, under any risk" in result.reexecution.sentence


def test_where_a_risk_is_a_mean_over_groups_whole_groups_are_drawn(good: Any) -> None:
    """One false group of 60 moves that mean by a sixtieth, however few of the rows are its."""
    data, scope = losses(good), redraw.Scope(None, BY_UNIT)
    drawn = redraw.table(data, redraw.draw(data, 7, 20, scope)).filter(pl.col("risk") == "utility")
    assert drawn.group_by("config").agg(pl.col("unit").n_unique())["unit"].to_list() == [20] * 4
    whole = redraw.table(data, redraw.draw(data, 7, 10**6)).filter(pl.col("risk") == "utility")
    assert len(drawn) == len(whole.join(drawn.select("config", "unit").unique(), on=["config", "unit"], how="semi"))
    first = drawn["unit"][0]
    honest = drawn.rename({"signed": "loss"}).with_columns(
        loss=pl.when(pl.col("unit") == first).then(pl.lit(1001)).otherwise(pl.col("loss").cast(pl.Int64))
    )
    counts = redraw.compare(drawn, honest, scope)
    assert counts[drawn["config"][0], "utility"][0] == 1
    counted = redraw.counted(data, 7, 20, scope, counts)
    assert {group["of"] for group in counted["groups"] if group["risk"] == "utility"} == {60}
    assert {group["of"] for group in counted["groups"] if group["risk"] == "forgetting"} == {240}


def test_differences_are_counted_and_lower_nothing_to_nothing(good: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    put(made, predicate(made, now, differed=3))
    result = verify(made)
    assert result.assurance == "self_attested"
    assert "3 differed" in result.reexecution.sentence
    assert float(result.reexecution.outcome.bound) > 3 / 99


def test_the_reports_own_signer_is_named_as_such(good: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    mine = keys.load_public(made.public).keyid
    put(made, {**predicate(made, now), "keyid": mine}, key="key")
    result = made.verify()
    assert not result.reexecution.independent
    assert result.reexecution.sentence.endswith("done by a signer of the report itself")


@pytest.mark.parametrize("signs", ["report", "plan"])
def test_who_signed_the_report_or_its_plan_later_is_a_signer_of_it(good: Any, copy: Any, now: Any, signs: str) -> None:
    made = copy(good)
    approver = made.key.with_name("other")
    if signs == "report":
        path = made.bundle / "report.dsse.json"
        path.write_bytes(keys.add(path.read_bytes(), keys.load_signer(approver)))
    else:
        path = made.bundle / "plan.dsse.json"
        path.write_bytes(keys.add(path.read_bytes(), keys.load_signer(approver)))
        made.resign()
    put(made, predicate(made, now))
    checked = verify(made)
    assert not checked.reexecution.independent
    assert {level.name: level.holds for level in checked.levels}["L5"] is False
    assert checked.reexecution.sentence.endswith("done by a signer of the report itself")


@pytest.mark.parametrize("share", [float("nan"), float("inf"), 2.0, 1.0, -0.1])
def test_a_share_that_says_nothing_is_refused(good: Any, share: float) -> None:
    with pytest.raises(InputError, match=r"--share .* is outside"):
        good.verify(share=share)


LIES: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a smaller bound": ("reexecution-bound", lambda p: p.update(bound="0.001")),
    "a higher confidence": ("reexecution-bound", lambda p: p.update(confidence="0.99")),
    "another number of rows to draw from": ("reexecution-bound", lambda p: p.update(of=14400)),
    "more differences than rows": ("reexecution-counts", lambda p: p["groups"][0].update(differed=100, largest=1)),
    "differences of nothing": ("reexecution-counts", lambda p: p["groups"][0].update(differed=1)),
    "no differences of something": ("reexecution-counts", lambda p: p["groups"][0].update(largest=1)),
    "other counts of all than of the groups": ("reexecution-bound", lambda p: p.update(differed=1, largest=1)),
    "a smaller bound of a group": ("reexecution-bound", lambda p: p["groups"][0].update(bound="0.001")),
    "a group left out": ("reexecution-bound", lambda p: p["groups"].pop()),
    "a group that is not there": ("reexecution-bound", lambda p: p["groups"][0].update(config="c0009")),
    "more of a group to draw from": ("reexecution-bound", lambda p: p["groups"][0].update(of=10**6)),
    "rows that were picked": ("reexecution-draw", lambda p: p["lines"].__setitem__(0, 2 if p["lines"][0] != 2 else 3)),
    "more rows than were drawn": ("reexecution-draw", lambda p: p.update(each=100)),
    "another sum of rows": ("reexecution-bound", lambda p: p.update(rows=100)),
    "another seed": ("reexecution-draw", lambda p: p.update(seed="8")),
    "the model instead of all": ("reexecution-draw", lambda p: p.update(how="model-measured")),
    "a seed with zeros before": ("reexecution-bound", lambda p: p.update(seed="007")),
    "a true count as another type": ("reexecution-shape", lambda p: p.update(differed=False)),
    "a further field": ("reexecution-shape", lambda p: p.update(remark="fine")),
    "another schema": ("reexecution-shape", lambda p: p.update(schema="3")),
    "groups without a number of each": ("reexecution-shape", lambda p: p.update(each=None)),
    "a number of each without groups": ("reexecution-shape", lambda p: p.update(groups=None)),
    "no group": ("reexecution-shape", lambda p: p.update(groups=[])),
    "none of each": ("reexecution-shape", lambda p: p.update(each=0)),
    "groups in a statement of old": ("reexecution-shape", lambda p: p.update(schema="1")),
    "a model measured without groups": ("reexecution-shape", lambda p: p["model"].update(how="measured", rows=1, of=1)),
    "made before the report": ("reexecution-before-report", lambda p: p.update(signed="2026-02-01T12:00:00Z")),
    "another signer named": ("reexecution-signer", lambda p: p.update(keyid="c" * 64)),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_a_re_execution_cannot_say_more_than_was_found(good: Any, copy: Any, now: Any, case: str) -> None:
    check, change = LIES[case]
    made = copy(good)
    statement = predicate(made, now)
    change(statement)
    put(made, statement)
    with pytest.raises(VerificationError) as caught:
        verify(made)
    assert caught.value.check == check


def test_it_is_about_these_signed_bytes_and_no_others(good: Any, failing: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    put(made, predicate(made, now), payload=failing.verify().payload)
    with pytest.raises(VerificationError, match="reexecution-other-report"):
        verify(made)


def test_a_report_without_a_model_has_none_to_measure(failing: Any, copy: Any, now: Any) -> None:
    made = copy(failing)
    put(made, predicate(made, now, config=failing.verify().report["config"]))
    with pytest.raises(VerificationError, match="reexecution-other-report"):
        made.verify(keys=[made.public, made.key.with_name("other.pub")])


def test_a_stranger_and_broken_bytes_are_refused(good: Any, copy: Any, now: Any) -> None:
    made = copy(good)
    put(made, predicate(made, now))
    with pytest.raises(VerificationError, match="reexecution-signer"):
        made.verify()
    path: Path = made.bundle / reexecution.NAME
    whole = path.read_bytes()
    for place in (0.0, 0.3, 0.6, 0.99):
        data = bytearray(whole)
        data[round(place * (len(data) - 2))] ^= 1
        path.write_bytes(data)
        with pytest.raises(VerificationError):
            verify(made)
    path.write_bytes((made.bundle / "plan.dsse.json").read_bytes())
    with pytest.raises(VerificationError, match="predicate-type"):
        verify(made)


@pytest.mark.parametrize("rows", [0, -1, 10**9])
def test_rows_that_cannot_be_drawn(rows: int) -> None:
    with pytest.raises(InputError, match="299"):
        redraw.refuse_rows(rows)


def test_a_tolerance_is_said_and_does_not_count_as_reproduced_where_nothing_may_differ(
    good: Any, copy: Any, now: Any
) -> None:
    lines = redraw.draw(losses(good), 7, 99)
    drawn = redraw.table(losses(good), lines)
    # each loss by two thousandths, towards the middle
    apart = drawn.with_columns(
        loss=pl.when(pl.col("signed") < 500).then(pl.col("signed") + 2).otherwise(pl.col("signed") - 2)
    )
    assert all(differed == 99 and largest == 2 for differed, largest in redraw.compare(drawn, apart, within=1).values())
    assert all(count == (0, 0) for count in redraw.compare(drawn, apart, within=2).values())
    missing = redraw.compare(drawn, apart.filter(pl.col("risk") != "utility"), within=10)
    assert {largest for (_, risk), (_, largest) in missing.items() if risk == "utility"} == {1000}
    made = copy(good)
    payload = made.verify(model=None).payload
    put(made, predicate(made, now) | {"within": 2}, payload=payload)
    tolerant = verify(made).reexecution
    put(made, predicate(made, now), payload=payload)
    strict = verify(made).reexecution
    assert "differ by more than 0.002" in tolerant.sentence
    assert "by more than" not in strict.sentence
    assert tolerant.lacks == strict.lacks == ""
    assert "compared within a tolerance" in replace(tolerant, exact=True).lacks
    assert replace(strict, exact=True).lacks == ""


def test_a_tolerance_is_small_and_for_runs_that_may_differ() -> None:
    reexecution.refuse_within(10, {})
    for within, environment, why in (
        (11, {}, "outside"),
        (-1, {}, "outside"),
        (1, {"deterministic": "yes"}, "come again exactly"),
    ):
        with pytest.raises(InputError, match=why):
            reexecution.refuse_within(within, environment)
    reexecution.refuse_within(0, {"deterministic": "yes"})


@pytest.mark.parametrize(
    ("environment", "kernel"),
    [
        ({"attention": "eager"}, "eager"),
        ({"attention": "sdpa"}, "sdpa"),
        ({"attention": "flash_attention_2"}, None),
        ({}, None),
    ],
)
def test_a_run_is_measured_again_with_its_attention_where_every_machine_has_it(
    environment: dict[str, Any], kernel: str | None
) -> None:
    assert machine_of(environment, Machine()).attention == kernel
