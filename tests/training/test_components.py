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
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseModelQuery, BaseStatistics, MethodContext, RowSource, TrainingRows
from froc.training.components import Combiner, Edit, Rollout, StepContext
from froc.training.loop import train_pack, unlearn
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.run import Run
from froc.training.terms import NLL, State, Term, WeightedTerm
from tests.training.small import nll, same

LR: dict[str, Any] = {"lr": 2e-3, "epochs": 2}


@dataclass(frozen=True)
class Made(Method):
    """A method of whatever phases it is given."""

    declared: tuple[Phase, ...] = ()
    evaluations: int = 0

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        return self.declared

    @property
    def n_feedback_evals(self) -> int:
        return self.evaluations


def _trained(bench: TrialRunner, method: Method, seed: int = 1) -> dict[str, Tensor]:
    unlearn(bench.base, method, bench.reference, batch=16, seed=seed)
    return bench.base.trainable.snapshot()


@dataclass(frozen=True)
class Rows(BaseModelQuery[int]):
    """How many rows there are; counts how often it was asked."""

    role: str
    computed_for: list[str] = field(default_factory=list, compare=False)

    def compute(self, reference: BaseStatistics) -> int:
        self.computed_for.append(self.role)
        return len(reference.pools.rows[self.role])

    def placeholder(self, context: MethodContext) -> int:
        return context.layers


def test_equal_surveys_are_taken_once_and_lists_need_no_model(bench: TrialRunner) -> None:
    first, same = Rows("forget"), Rows("forget")
    result = MethodContext(2, 64, 0, answer=bench.reference.ask)
    assert result.ask(first) == result.ask(same) == len(bench.reference.pools.rows["forget"])
    assert (first.computed_for, same.computed_for) == (["forget"], [])
    assert MethodContext(7, 64, 0).ask(first) == 7


@dataclass(frozen=True)
class Backwards(RowSource):
    """The forget rows with their answers' tokens in reverse."""

    def rows(self, reference: BaseStatistics) -> Sequence[Encoded]:
        made = []
        for row in reference.pools.rows["forget"]:
            stop = row.prompt + row.answer
            ids = (*row.ids[: row.prompt], *row.ids[row.prompt : stop][::-1], *row.ids[stop:])
            made.append(Encoded(ids, row.prompt, row.answer))
        return made


def test_a_source_makes_the_rows_of_its_role(bench: TrialRunner) -> None:
    made = Made(**LR, declared=(Phase({"learn": WeightedTerm(NLL("backwards"))}, sources={"backwards": Backwards()}),))
    bench.reference.ensure("backwards", Backwards())
    before = nll(bench.reference, "backwards")
    _trained(bench, made)
    assert nll(bench.reference, "backwards") < before / 2
    others = {role: rows for role, rows in bench.reference.pools.rows.items() if role != "backwards"}
    bare = BaseStatistics(bench.base, TrainingRows(others, all_have_questions=False))
    with pytest.raises(InputError, match="with questions"):
        unlearn(bench.base, made, bare, batch=16, seed=1)


class Shrink(Edit):
    """Halves what moves, three times."""

    @property
    def rounds(self) -> int:
        return 3

    @torch.no_grad()
    def __call__(self, step_context: StepContext) -> None:
        for parameter in step_context.parameters.values():
            parameter.mul_(0.5)


def test_edits_write_what_moves_and_are_steps(bench: TrialRunner) -> None:
    steps = unlearn(
        bench.base, Made(declared=(Phase({}, edit=Shrink(), trains="norm"),)), bench.reference, batch=16, seed=0
    )
    assert steps == 3
    for name, value in bench.base.trainable.snapshot().items():
        start = bench.base.trainable.base_values()[name]
        assert torch.equal(value, start / 8 if "norm" in name else start)


def test_an_edit_after_training_is_made_at_the_end_alone() -> None:
    trained = Phase({"a": WeightedTerm(NLL("forget"))})
    assert Made(declared=(trained, Phase({"b": WeightedTerm(NLL("retain"))}))).can_stop_early
    assert Made(declared=(Phase({}, edit=Shrink()),)).can_stop_early
    assert not Made(declared=(trained, Phase({}, edit=Shrink()))).can_stop_early
    with pytest.raises(TypeError, match="not both"):
        Phase({"a": WeightedTerm(NLL("forget"))}, edit=Shrink())


class Curious(Combiner):
    """Takes the probe again here and a step further, and goes where the sum says."""

    needs_probes: ClassVar[bool] = True

    def direction_with_probes(self, gradients: Any, probe: Any, parameters: Any, state: State) -> dict[str, Tensor]:
        here = probe()
        start = {name: p.clone() for name, p in parameters.items()}
        for p in parameters.values():
            p.mul_(0.9)
        there = probe()
        for name, p in parameters.items():
            p.copy_(start[name])
        state.setdefault("seen", []).append((gradients, here, there))
        return self.direction(gradients, state)


def test_a_probing_combiner_gets_the_gradients_of_the_same_rows_anywhere(bench: TrialRunner) -> None:
    parts = {"forget": WeightedTerm(NLL("forget", sign=-1.0)), "retain": WeightedTerm(NLL("retain"))}

    ends = []
    for combiner in (Combiner(), Curious()):
        run = Run(
            Made(lr=2e-3, epochs=1, declared=(Phase(parts, combiner=combiner),)),
            bench.reference,
            batch=16,
            seed=1,
            engine=Engine(),
        )
        train_pack(bench.base, [run], Engine())
        ends.append(bench.base.trainable.snapshot())
    assert all(torch.allclose(ends[0][n], ends[1][n], atol=1e-5) for n in ends[0])
    gradients, here, there = run.state["seen"][0]
    assert set(gradients) == {"forget", "retain"}
    assert all(torch.equal(gradients[side][n], here[side][n]) for side in gradients for n in gradients[side])
    assert any(not torch.equal(gradients["retain"][n], there["retain"][n]) for n in gradients["retain"])


@dataclass(frozen=True)
class Again(Rollout):
    """The first forget rows, as if the model had written them, each with a number."""

    every: int = 2

    @property
    def passes(self) -> float:
        return 1.0

    def draw(self, step_context: StepContext, count: int) -> tuple[Sequence[Encoded], Mapping[str, Tensor]]:
        step_context.state.setdefault("drawn", []).append(step_context.step)
        return step_context.reference.pools.rows["forget"][:count], {"worth": torch.arange(count, dtype=torch.float32)}


@dataclass(frozen=True)
class Worth(Term):
    """NLL times the number, and notes which numbers it saw."""

    def losses(self, forward: Forward, reference: Mapping[str, Tensor], state: State) -> Tensor:
        state.setdefault("worth", []).append(reference["worth"].tolist())
        return forward.mean_nll * reference["worth"]


def test_rollouts_are_drawn_again_and_gone_through_in_order(bench: TrialRunner) -> None:

    phase = Phase({"worth": WeightedTerm(Worth("rollout")), "retain": WeightedTerm(NLL("retain"))}, rollout=Again())
    run = Run(Made(**LR, declared=(phase,)), bench.reference, batch=8, seed=1, engine=Engine())
    train_pack(bench.base, [run], Engine())
    assert run.state["drawn"] == list(range(0, run.done, 2))
    # a step's passes may be cut by length, so its numbers come in parts
    seen = [number for part in run.state["worth"] for number in part]
    steps = [sorted(seen[k : k + 8]) for k in range(0, len(seen), 8)]
    assert steps == [list(map(float, range(8 * (k % 2), 8 * (k % 2) + 8))) for k in range(run.done)]


class Enough(Combiner):
    """Ends training at the second telling."""

    def on_search_losses(self, losses: Mapping[str, Any], budgets: Mapping[str, float], state: State) -> bool:
        state.setdefault("search_losses", []).append(
            {risk: float(losses_of_risk.mean()) for risk, losses_of_risk in losses.items()}
        )
        return len(state["search_losses"]) == 2


def test_a_method_that_is_told_may_end_and_does_so_when_trained_again(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:

    phase = Phase(
        {"forget": WeightedTerm(NLL("forget", sign=-1.0)), "retain": WeightedTerm(NLL("retain"))}, combiner=Enough()
    )
    method = Made(lr=1e-3, epochs=3, declared=(phase,), evaluations=3)
    monkeypatch.setattr(module, "make", lambda *_: method)
    spec = TrialSpec("made", {}, 5)
    outcome = bench.run([spec], [lambda *_: False])[0]
    assert outcome.status == "complete"
    assert 0 < outcome.steps < 3 * len(bench.reference.pools.rows["forget"]) / bench.batch
    kept = bench.base.trainable.snapshot()
    bench.retrain(spec)
    assert same(kept, bench.base.trainable.snapshot())
    assert np.isfinite(list(outcome.ended[0].means.values())).all()
