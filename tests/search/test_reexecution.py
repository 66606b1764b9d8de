"""What a run sealed is found again from plan, seal and seeds alone: every loss, to the thousandth."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from froc.configuration_id import ConfigurationId
from froc.data.splits import split
from froc.data.task import FORGETTING, UTILITY
from froc.errors import FrocError, InputError, InterruptedRunError
from froc.models.base import Base
from froc.risk.positive_control import BASE
from froc.search.job import Job
from froc.search.pipeline import run
from froc.search.reexecution import Target, refuse_other_job, refuse_other_units, remeasure
from froc.search.run_folder import Folder
from froc.search.settings import settings_of
from tests.search.small_search import BUDGET, Watch, job

EPOCHS = (1, 2)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"metrics": {FORGETTING: "probability", UTILITY: "probability"}},
    "sequential": {"sequential": True},
    "listed": {"population": {UTILITY: "sample"}, "sample": {UTILITY: 60}},
    "attacked": {"budget": {**BUDGET, "quantized": 0.5}},
}


def made_again(base: Base, plan: dict[str, Any]) -> Job:
    """A job from nothing but the plan, the task and the base model."""
    settings = settings_of(plan, {})
    whole = job(
        base,
        epochs=EPOCHS,
        **{name: getattr(settings, name) for name in ("metrics", "budget", "sequential", "population")},
    )
    sources = {risk: measure.source for risk, measure in _measures(settings).items()}
    view, sealed = split(whole.task, settings.share, settings.sample, sources)
    return replace(whole, settings=settings, view=view, sealed=sealed)


def _measures(settings: Any) -> Any:
    from froc.search.settings import measures

    return measures(settings)


def started(base: Base, **overrides: Any) -> Job:
    first = job(base, epochs=EPOCHS, trials=3, candidates=3, **overrides)
    sources = {risk: measure.source for risk, measure in _measures(first.settings).items()}
    view, sealed = split(first.task, first.settings.share, first.settings.sample, sources)
    return replace(first, view=view, sealed=sealed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_is_found_again(base: Base, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    run(started(base, **KINDS[kind]), out, Watch())
    folder = Folder(out)
    plan, seal = json.loads(folder.plan.read_text()), json.loads(folder.seal.read_text())
    table = pl.concat([pl.read_parquet(folder.calibration_losses), pl.read_parquet(folder.base_losses)])
    again = made_again(base, plan)
    refuse_other_job(again, plan)
    _counts_must_be_those_of_the_rows(again, plan)
    refuse_other_units(again, table)
    alone = table.with_columns(unit=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("0" * 16)).otherwise("unit"))
    with pytest.raises(InputError, match=f"1 of {len(table)} losses name another unit"):
        refuse_other_units(again, alone)
    seeds = {line.config: line.seed for line in folder.log()}
    targets = [
        Target(c["config"], c["method"], c["params"], seeds[str(ConfigurationId.parse(c["config"]).of_trial)])
        for c in seal["candidates"]
    ]
    assert any("mix" in target.params for target in targets)
    targets.append(Target(BASE, BASE, {}, 0))
    keys = ["config", "split", "risk", "query"]
    remeasured = remeasure(again, seal, targets, table.select(keys), lambda done, of: None)
    assert remeasured.select(*keys, "loss").sort(keys).equals(table.select(*keys, "loss").sort(keys))
    few = remeasure(
        again, seal, targets[:1], table.filter(pl.col("config") == targets[0].config).head(3), lambda *_: None
    )
    assert len(few) == 3
    why: dict[str, FrocError] = {}
    for broken in (replace(targets[0], method="nosuch"), replace(targets[0], params={"lr": "much"})):
        none = remeasure(
            again, seal, [broken], table.select(keys), lambda *_: None, failed=lambda *pair: why.update([pair])
        )
        assert none.is_empty()
        assert str(why.pop(broken.config))


def _counts_must_be_those_of_the_rows(again: Job, plan: dict[str, Any]) -> None:
    """A shorter list gives smaller bounds from the same losses."""
    counts = [("split", "search"), ("split", "calibration"), *([("listed",)] if plan["listed"] else [])]
    for path in counts:
        changed = json.loads(json.dumps(plan))
        part = changed
        for name in path:
            part = part[name]
        part[UTILITY] -= 1
        with pytest.raises(InputError, match=rf"{UTILITY}.* units.* and these rows give"):
            refuse_other_job(again, changed)
    with pytest.raises(InputError, match="of the tokenizer"):
        refuse_other_job(again, {**plan, "tokenizer": None if "tokenizer" in plan else "from-the-data"})
    changed = {**plan, "task": {**plan["task"], "units": {**plan["task"]["units"], UTILITY: "group"}}}
    with pytest.raises(InputError, match=f"sampling unit of {UTILITY} is group"):
        refuse_other_job(again, changed)


def test_another_draw_or_measurement_is_refused(base: Base, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # plans are written before the first trial
    with pytest.raises(InterruptedRunError):
        run(started(base), out, Watch(stop_at=1))
    plan = json.loads(Folder(out).plan.read_text())
    again = made_again(base, plan)
    refuse_other_job(again, plan)
    view, sealed = split(replace(again.task, split_seed=5), 0.2)
    for changed, word in (
        (replace(again, view=view, sealed=sealed), "the draw is false"),
        (replace(again, settings=settings_of(plan, {FORGETTING: "probability"})), "was measured as"),
        (replace(again, task=replace(again.task, split_seed=5)), "another task"),
        (replace(again, base=replace(base, digest="0" * 64)), "another base model"),
    ):
        with pytest.raises(InputError, match=word):
            refuse_other_job(changed, plan)
