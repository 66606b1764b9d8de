"""Trials that are interrupted go on where their state was saved: looks, pruners, packs, drivers, workers, the command itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from froc.data.splits import Sealed, SearchView
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.models.base import Base, load, save
from froc.models.compute import Engine
from froc.plugins import make
from froc.search.trial import runner as module
from froc.search.trial.outcome import Hopeless, Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.checkpoint import Saver
from froc.training.loop import train_pack
from tests.search.small_search import Killed

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("certificate.json", "losses/search.parquet", "losses/calibration.parquet")


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROC_SAVE_EVERY", "0")


class Dying(Saver):
    """Its process is killed after `left` saves."""

    left = 10**6

    def write(self, *state: Any) -> None:
        super().write(*state)
        self.left -= 1
        if not self.left:
            raise Killed


def dying(place: Path, left: int) -> Dying:
    made = Dying(place, "these")
    made.left = left
    return made


def asking(calls: list[int]) -> Hopeless:
    """A judge that finds nothing hopeless and notes the place of each rung that it is asked about."""

    def hopeless(rungs: Sequence[Sequence[Any]], seen: Sequence[Sequence[float]]) -> bool:
        assert len(rungs) == len(seen)
        calls.append(len(rungs))
        return False

    return hopeless


def bench_on(base: Base, view: SearchView, engine: Engine | None = None) -> TrialRunner:
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "extraction_strength")))
    return TrialRunner(base, view, measures, batch=16, seed=0, engine=engine)


def same(first: Outcome, second: Outcome) -> bool:
    """Everything but the time it took, to the bit."""
    assert (first.status, first.reason, first.steps, first.adapter_index) == (
        second.status,
        second.reason,
        second.steps,
        second.adapter_index,
    )
    assert (first.rungs, first.queries) == (second.rungs, second.queries)
    for a, b in zip(first.ended, second.ended, strict=True):
        assert (a.step, a.mix, a.means, a.averages) == (b.step, b.mix, b.means, b.averages)
        assert all(np.array_equal(a.tables[risk], b.tables[risk]) for risk in a.tables)
    assert list(first.kept) == list(second.kept)
    return all(torch.equal(first.kept[step][n], second.kept[step][n]) for step in first.kept for n in first.kept[step])


@pytest.mark.parametrize("name", ["npo", "pdu", "gu(npo)", "advunlearn(npo)", "rmu"])
def test_a_trial_goes_on_with_its_looks_and_its_judge(
    base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path, name: str
) -> None:
    """Killed between rungs and behind them: same losses, kept weights and end; a new judge hears of each rung once."""
    params = {"lr": 2e-3, "epochs": 3} | ({"memory": 2} if name.startswith("gu") else {})
    specs, calls = [TrialSpec(name, params, 7)], list[int]()
    (whole,) = bench_on(base, parts[0]).run(specs, [asking(calls)])
    ends = base.trainable.snapshot()
    assert (whole.status, whole.resumed, calls) == ("complete", None, [1, 2])
    assert whole.kept
    first, second = (step for step, _ in whole.rungs)
    for at in (1, first, second, whole.steps) if name == "npo" else (first,):
        place, places = tmp_path / str(at), list[int]()
        with pytest.raises(Killed):
            bench_on(base, parts[0]).run(specs, [asking([])], None, dying(place, at))
        saver = Saver(place, "these")
        (resumed,) = bench_on(base, parts[0]).run(specs, [asking(places)], None, saver)
        assert (resumed.resumed, places, saver.notes) == (at, [1, 2], [])
        assert same(whole, resumed)
        assert all(torch.equal(ends[n], p) for n, p in base.trainable.snapshot().items())


def test_a_pruned_trial_stays_pruned(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> None:
    """Killed when the rung's verdict had been saved, and before anybody heard of it."""
    specs = [TrialSpec("npo", {"lr": 2e-3, "epochs": 3}, 7)]
    bench = bench_on(base, parts[0])
    (whole,) = bench.run(specs, [lambda *_: True])
    assert whole.status == "pruned"
    with pytest.raises(Killed):
        bench.run(specs, [lambda *_: True], None, dying(tmp_path, whole.steps))
    (resumed,) = bench.run(specs, [lambda *_: True], None, Saver(tmp_path, "these"))
    assert resumed.resumed == whole.steps
    assert same(whole, resumed)


def test_a_state_that_does_not_fit_is_left_alone(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> None:
    """Of other parameters, by whatever accident: the trial begins anew, says so, and comes to what it would have."""
    bench = bench_on(base, parts[0])
    specs = [TrialSpec("npo", {"lr": 2e-3, "epochs": 2}, 7)]
    (whole,) = bench.run(specs, [asking([])])
    with pytest.raises(Killed):
        bench.run([TrialSpec("rmu", {"lr": 2e-3, "epochs": 2}, 7)], [asking([])], None, dying(tmp_path, 4))
    text = (tmp_path / "state.json").read_text(encoding="utf-8")
    (tmp_path / "state.json").write_text(text.replace("down_proj", "sideways"), encoding="utf-8")
    saver, calls = Saver(tmp_path, "these"), list[int]()
    (begun_anew,) = bench.run(specs, [asking(calls)], None, saver)
    assert saver.notes == ["its saved state does not fit (KeyError): it began anew"]
    assert (begun_anew.resumed, calls) == (None, [1, 2])
    assert same(whole, begun_anew)


def test_time_before_the_interruption_counts(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> None:
    """A limit is a trial's and not an attempt's: who had used it up is out of time at once."""
    specs, bench = [TrialSpec("npo", {"lr": 2e-3, "epochs": 2}, 7)], bench_on(base, parts[0])
    with pytest.raises(Killed):
        bench.run(specs, [asking([])], 3600.0, dying(tmp_path, 2))
    state = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    assert 0 < state["said"]["seconds"] < 3600
    state["said"]["seconds"] = 3600.0
    (tmp_path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (resumed,) = bench.run(specs, [asking([])], 3600.0, Saver(tmp_path, "these"))
    assert (resumed.status, resumed.resumed, resumed.steps) == ("timed-out", 2, 2)
    assert resumed.seconds < 600


@pytest.fixture
def packed(base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path) -> TrialRunner:
    base.restore()
    save(base, tmp_path / "model")
    lora = load(str(tmp_path / "model"), device="cpu", train="lora:rank=4", n_adapters=3)
    return bench_on(lora, parts[0])


PACK = [
    TrialSpec("npo", {"lr": 5e-3, "epochs": 1}, 1), TrialSpec("pdu", {"lr": 5e-3, "epochs": 3}, 2),
    TrialSpec("grad_diff", {"lr": 5e-3, "epochs": 2}, 3),
]  # fmt: skip


def test_a_pack_goes_on_together(packed: TrialRunner, tmp_path: Path) -> None:
    """All three in training, one or two of them at their end already."""
    whole = packed.run(PACK, [asking([]) for _ in PACK])
    ends = [packed.base.trainable.snapshot(member) for member in range(3)]
    for ended, steps in enumerate((0, whole[0].steps, whole[2].steps)):
        at, place = 1 + steps, tmp_path / f"after-{ended}"
        assert sum(outcome.steps < at for outcome in whole) == ended
        with pytest.raises(Killed):
            packed.run(PACK, [asking([]) for _ in PACK], None, dying(place, at))
        resumed = packed.run(PACK, [asking([]) for _ in PACK], None, Saver(place, "these"))
        assert [outcome.resumed for outcome in resumed] == [min(at, outcome.steps) for outcome in whole]
        assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
        for member in range(3):
            assert all(torch.equal(ends[member][n], p) for n, p in packed.base.trainable.snapshot(member).items())


def test_members_of_a_pack_that_failed_go_on_alone(
    packed: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_pack

    def apart(base: Base, runs: Any, *rest: Any) -> None:
        if len(runs) > 1:
            raise RuntimeError("too many at once")
        real(base, runs, *rest)

    monkeypatch.setattr(module, "train_pack", apart)
    whole = packed.run(PACK, [asking([]) for _ in PACK])

    class Deadly(Saver):
        """Whose second part dies after its fourth save."""

        def for_config(self, place: int) -> Saver:
            made = Dying(self._folder / str(place), f"{self._identity}/{place}")
            made.left = 4 if place == 1 else made.left
            return made

    with pytest.raises(Killed):
        packed.run(PACK, [asking([]) for _ in PACK], None, Deadly(tmp_path, "these"))
    resumed = packed.run(PACK, [asking([]) for _ in PACK], None, Saver(tmp_path, "these"))
    # the first had come to its end, and the third had not begun
    assert [outcome.resumed for outcome in resumed] == [whole[0].steps, 4, None]
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
