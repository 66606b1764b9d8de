"""Detection of hopeless trials by Optuna's pruners, wherever a trial runs.

Pruners support single objectives only, and methods forget at different speeds: each method has a study of its own,
which holds rungs only. A trial takes the results of its method's earlier trials with it as a `TrialPruner`, fixed when
it is created, so that its fate does not depend on concurrent trials and is the same on one core and on many machines.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from froc.search.optuna.space import pick
from froc.search.run_folder import TrialRecord
from froc.search.sealed.ranking import excess

PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=6, n_min_trials=4),
    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=3, reduction_factor=3),
    "wilcoxon": lambda: optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=8),
    "none": optuna.pruners.NopPruner,
}
BY_QUERY = ("wilcoxon",)
"""Pruners that compare losses query by query; the others compare one value per rung."""
STRIDE = 1_000_000
"""Optuna's step of a query is its number plus this times its rung."""


class TrialPruner:
    """Decides about one trial, and travels with it. before: rungs of trials that ended before it was created."""

    def __init__(self, pruner: str, limits: Mapping[str, float], method: str, before: Sequence[FrozenTrial]) -> None:
        self._pruner, self._limits, self._method, self._before = pruner, dict(limits), method, tuple(before)

    def begin(self) -> Callable[[Sequence[Sequence[Any]], Sequence[Sequence[float]]], bool]:
        """Start a trial. The returned function says whether the trial is hopeless; a trial within budget never is.

        Its arguments: [step, means] of each rung so far, and per rung each query's loss over its budget.
        """
        study = _study(self._pruner, self._method)
        study.add_trials(self._before)
        trial = study.ask()

        def hopeless(rungs: Sequence[Sequence[Any]], seen: Sequence[Sequence[float]] = ()) -> bool:
            _report(trial, self._pruner, self._limits, rungs, seen)
            # always asked, since successive halving records every rung
            behind = trial.should_prune()
            return behind and excess(rungs[-1][1], self._limits) > 0

        return hopeless


class PruningHistory:
    """What finished trials showed at their rungs, per method, in the order in which they are added."""

    def __init__(self, pruner: str, methods: Iterable[str], limits: Mapping[str, float]) -> None:
        pick("pruner", PRUNERS, pruner)
        self._pruner, self._limits = pruner, dict(limits)
        self._studies = {method: _study(pruner, method) for method in methods}

    @property
    def by_query(self) -> bool:
        """Whether the pruner needs the losses of single queries."""
        return self._pruner in BY_QUERY

    def pruner(self, method: str) -> TrialPruner:
        """The pruner of a trial that is about to start."""
        return TrialPruner(self._pruner, self._limits, method, self._studies[method].get_trials(deepcopy=False))

    def remember(self, record: TrialRecord, best: float | None, seen: Sequence[Sequence[float]] = ()) -> None:
        """Add a finished trial. best: smallest excess among its configurations; None unless complete."""
        study = self._studies[record.method]
        trial = study.ask()
        for place in range(1, len(record.rungs) + 1):
            _report(trial, self._pruner, self._limits, record.rungs[:place], seen[:place])
            trial.should_prune()
        if best is not None:
            study.tell(trial, best)
        else:
            study.tell(trial, state=TrialState.PRUNED if record.rungs else TrialState.FAIL)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Context manager without Optuna's warnings of experimental features; froc pins Optuna's range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # the GP sampler divides by zero where a choice is certain, harmlessly
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"optuna\._gp")
        yield


def _study(pruner: str, method: str) -> optuna.Study:
    # messages about new studies are of no use to the user
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with quiet_optuna():
        made: optuna.pruners.BasePruner = pick("pruner", PRUNERS, pruner)()
    return optuna.create_study(study_name=f"froc-{method}", direction="minimize", pruner=made)


def _report(
    trial: optuna.Trial, pruner: str, limits: Mapping[str, float], rungs: Sequence[Sequence[Any]],
    seen: Sequence[Sequence[float]],
) -> None:  # fmt: skip
    place = len(rungs)
    if pruner not in BY_QUERY:
        trial.report(excess(rungs[-1][1], limits), place)
        return
    for number, value in enumerate(seen[-1] if seen else ()):
        trial.report(value, place * STRIDE + number)
