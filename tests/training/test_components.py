"""Slots that one method or two fill: surveys, sources, edits, rollouts, combiners that probe or are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from froc.errors import InputError
from froc.models.batches import Encoded
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.search.trial import runner as module
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import Facts, Pools, Reference, Source, Survey
from froc.training.components import Combiner, Edit, Ground, Rollout
from froc.training.loop import together, unlearn
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.run import Run
from froc.training.terms import NLL, Part, State, Term
from tests.training.small import nll, same

LR = {"lr": 2e-3, "epochs": 2}


@dataclass(frozen=True)
class Made(Method):
    """A method of whatever phases it is given."""

    given: tuple[Phase, ...] = ()
    told: int = 0

    def phases(self, facts: Facts) -> tuple[Phase, ...]:
        return self.given

    @property
    def looks(self) -> int:
        return self.told


def _trained(bench: TrialRunner, method: Method, seed: int = 1) -> dict[str, Tensor]:
    unlearn(bench.base, method, bench.reference, batch=16, seed=seed)
    return bench.base.scope.take()


@dataclass(frozen=True)
class Rows(Survey[int]):
    """How many rows there are; counts how often it was asked."""

    role: str
    asked: list[str] = field(default_factory=list, compare=False)

    def take(self, reference: Reference) -> int:
        self.asked.append(self.role)
        return len(reference.pools.rows[self.role])

    def typical(self, facts: Facts) -> int:
        return facts.layers


def test_equal_surveys_are_taken_once_and_lists_need_no_model(bench: TrialRunner) -> None:
    one, same = Rows("forget"), Rows("forget")
    found = Facts(2, 64, 0, found=bench.reference.ask)
    assert found.ask(one) == found.ask(same) == len(bench.reference.pools.rows["forget"])
    assert (one.asked, same.asked) == (["forget"], [])
    assert Facts(7, 64, 0).ask(one) == 7


@dataclass(frozen=True)
class Backwards(Source):
    """The forget rows with their answers' tokens in reverse."""

    def rows(self, reference: Reference) -> Sequence[Encoded]:
        made = []
        for row in reference.pools.rows["forget"]:
            stop = row.prompt + row.answer
            ids = (*row.ids[: row.prompt], *row.ids[row.prompt : stop][::-1], *row.ids[stop:])
            made.append(Encoded(ids, row.prompt, row.answer))
        return made


def test_a_source_makes_the_rows_of_its_role(bench: TrialRunner) -> None:
    made = Made(**LR, given=(Phase({"learn": Part(NLL("backwards"))}, sources={"backwards": Backwards()}),))
    bench.reference.ensure("backwards", Backwards())
    before = nll(bench.reference, "backwards")
    _trained(bench, made)
    assert nll(bench.reference, "backwards") < before / 2
    others = {role: rows for role, rows in bench.reference.pools.rows.items() if role != "backwards"}
    bare = Reference(bench.base, Pools(others, asked=False))
    with pytest.raises(InputError, match="with questions"):
        unlearn(bench.base, made, bare, batch=16, seed=1)


class Shrink(Edit):
    """Halves what moves, three times."""

    @property
    def rounds(self) -> int:
        return 3

    @torch.no_grad()
    def __call__(self, ground: Ground) -> None:
        for parameter in ground.moving.values():
            parameter.mul_(0.5)


def test_edits_write_what_moves_and_are_steps(bench: TrialRunner) -> None:
    steps = unlearn(
        bench.base, Made(given=(Phase({}, edit=Shrink(), trains="norm"),)), bench.reference, batch=16, seed=0
    )
    assert steps == 3
    for name, value in bench.base.scope.take().items():
        start = bench.base.scope.start[name]
        assert torch.equal(value, start / 8 if "norm" in name else start)


def test_an_edit_after_training_is_made_at_the_end_alone() -> None:
    trained = Phase({"a": Part(NLL("forget"))})
    assert Made(given=(trained, Phase({"b": Part(NLL("retain"))}))).gradual
    assert Made(given=(Phase({}, edit=Shrink()),)).gradual
    assert not Made(given=(trained, Phase({}, edit=Shrink()))).gradual
    with pytest.raises(TypeError, match="not both"):
        Phase({"a": Part(NLL("forget"))}, edit=Shrink())


class Curious(Combiner):
    """Takes the gradients again here and a step further, and goes where the sum says."""

    probes: ClassVar[bool] = True

    def explored(self, sides: Any, gradients: Any, moving: Any, state: State) -> dict[str, Tensor]:
        here = gradients()
        start = {name: p.clone() for name, p in moving.items()}
        for p in moving.values():
            p.mul_(0.9)
        there = gradients()
        for name, p in moving.items():
            p.copy_(start[name])
        state.setdefault("seen", []).append((sides, here, there))
        return self.direction(sides, state)


def test_a_probing_combiner_gets_the_gradients_of_the_same_rows_anywhere(bench: TrialRunner) -> None:
    parts = {"forget": Part(NLL("forget", sign=-1.0)), "retain": Part(NLL("retain"))}

    ends = []
    for combiner in (Combiner(), Curious()):
        run = Run(
            Made(lr=2e-3, epochs=1, given=(Phase(parts, combiner=combiner),)),
            bench.reference,
            batch=16,
            seed=1,
            engine=Engine(),
        )
        together(bench.base, [run], Engine())
        ends.append(bench.base.scope.take())
    assert all(torch.allclose(ends[0][n], ends[1][n], atol=1e-5) for n in ends[0])
    sides, here, there = run.state["seen"][0]
    assert set(sides) == {"forget", "retain"}
    assert all(torch.equal(sides[side][n], here[side][n]) for side in sides for n in sides[side])
    assert any(not torch.equal(sides["retain"][n], there["retain"][n]) for n in sides["retain"])


@dataclass(frozen=True)
class Again(Rollout):
    """The first forget rows, as if the model had written them, each with a number."""

    every: int = 2

    @property
    def passes(self) -> float:
        return 1.0

    def draw(self, ground: Ground, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        ground.state.setdefault("drawn", []).append(ground.step)
        return ground.reference.pools.rows["forget"][:count], {"worth": torch.arange(count, dtype=torch.float32)}


@dataclass(frozen=True)
class Worth(Term):
    """NLL times the number, and notes which numbers it saw."""

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        state.setdefault("worth", []).append(reference["worth"].tolist())
        return forward.mean_nll * reference["worth"]


def test_rollouts_are_drawn_again_and_gone_through_in_order(bench: TrialRunner) -> None:

    phase = Phase({"worth": Part(Worth("rollout")), "retain": Part(NLL("retain"))}, rollout=Again())
    run = Run(Made(**LR, given=(phase,)), bench.reference, batch=8, seed=1, engine=Engine())
    together(bench.base, [run], Engine())
    assert run.state["drawn"] == list(range(0, run.done, 2))
    # a step's passes may be cut by length, so its numbers come in parts
    seen = [number for part in run.state["worth"] for number in part]
    steps = [sorted(seen[k : k + 8]) for k in range(0, len(seen), 8)]
    assert steps == [list(map(float, range(8 * (k % 2), 8 * (k % 2) + 8))) for k in range(run.done)]


class Enough(Combiner):
    """Ends training at the second telling."""

    def told(self, losses: Mapping[str, Any], budgets: Mapping[str, float], state: State) -> bool:
        state.setdefault("told", []).append({risk: float(some.mean()) for risk, some in losses.items()})
        return len(state["told"]) == 2


def test_a_method_that_is_told_may_end_and_does_so_when_trained_again(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:

    phase = Phase({"forget": Part(NLL("forget", sign=-1.0)), "retain": Part(NLL("retain"))}, combiner=Enough())
    method = Made(lr=1e-3, epochs=3, given=(phase,), told=3)
    monkeypatch.setattr(module, "make", lambda *_: method)
    asked = module.TrialSpec("made", {}, 5)
    outcome = bench.run([asked], [lambda *_: False])[0]
    assert outcome.status == "complete"
    assert 0 < outcome.steps < 3 * len(bench.reference.pools.rows["forget"]) / bench.batch
    kept = bench.base.scope.take()
    bench.retrain(asked)
    assert same(kept, bench.base.scope.take())
    assert np.isfinite(list(outcome.ended[0].means.values())).all()
