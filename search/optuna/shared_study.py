"""A study that several drivers share in one database: each trial belongs to one driver, and all learn from all.

Drivers with the same plan share a study, each with a run folder of its own. The database numbers the trials, so that
none is done twice. Drawn configurations depend on when the others finish, so such a run cannot be repeated bit by bit;
but nothing that it learns from has seen a calibration query, since drivers with another plan (another split, for
example) use another study.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from froc.errors import InputError
from froc.search.optuna.pruning import quiet_optuna
from froc.search.optuna.space import suggest
from froc.search.optuna.study import Study
from froc.search.run_folder import TrialRecord

TRIES = 4


class Shared(Study):
    """url: of Optuna's storage, such as postgresql://user@host/database; plan: digest that drivers must have in common."""

    def __init__(self, url: str, plan: str, *arguments: Any, **options: Any) -> None:
        super().__init__(None, *arguments, **options)
        self._url, self._name = url, f"froc-{plan[:16]}"
        self._held: dict[int, optuna.Trial] = {}
        self._known: set[int] = set()
        self._storage: optuna.storages.RDBStorage | None = None

    def close(self) -> None:
        """Leave the database."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def claim(self, after: int, most: int) -> int | None:
        """A number that no other driver has; None where there are `most` trials already."""
        assert self._study is not None
        if len(self._study.get_trials(deepcopy=False)) >= most:
            return None
        self._study.sampler = optuna.samplers.RandomSampler(seed=0)
        trial = self._study.ask()
        if trial.number >= most:  # others were quicker
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return None
        self._held[trial.number] = trial
        return trial.number

    def _suggested(self, number: int, again: tuple[str, Mapping[str, Any]] | None) -> tuple[str, dict[str, Any]]:
        """What the sampler proposes, knowing the trials that other drivers have finished by now."""
        assert self._study is not None
        self._learn_from_others()
        drawn = self._drawn(number, again)
        fixed = (
            {"method": drawn[0]} | {f"{drawn[0]}.{name}": value for name, value in drawn[1].items()} if drawn else {}
        )
        trial = self._held.pop(number, None) or self._running(number)
        self._study.sampler = optuna.samplers.PartialFixedSampler(fixed, self._seeded(number))
        self._trials[number] = trial
        self._known.add(number)
        return suggest(trial, self._space)

    def _running(self, number: int) -> optuna.Trial:
        """A trial that an earlier call of this driver claimed."""
        assert self._study is not None
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number == number and not trial.state.is_finished():
                return optuna.Trial(self._study, trial._trial_id)
        raise InputError("the shared study does not know this run's trials; start a new run folder (--out)")

    def _learn_from_others(self) -> None:
        assert self._study is not None
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number in self._known or not trial.state.is_finished() or "method" not in trial.params:
                continue
            self._known.add(trial.number)
            self._heard(trial)

    def _heard(self, trial: optuna.trial.FrozenTrial) -> None:
        method = trial.params["method"]
        mine = {name: value for name, value in trial.params.items() if name.startswith(f"{method}.")}
        if trial.constraints:
            worst = max(trial.constraints[risk] / alpha for risk, alpha in self._budget.items())
            self._best[method] = min(self._best.get(method, worst), worst)
        if self._draws_methods:
            return
        self._methods[method].add_trial(
            optuna.trial.create_trial(
                state=trial.state, values=trial.values, params=mine, constraints=trial.constraints,
                distributions={name: trial.distributions[name] for name in mine},
            )
        )  # fmt: skip

    def _open(self, done: Sequence[TrialRecord]) -> optuna.Study:
        self._known |= {record.trial for record in done}
        for left in reversed(range(TRIES)):
            try:
                return self._joined()
            except (SQLAlchemyError, ImportError) as error:
                self.close()
                # two drivers that make the tables at the same moment: the slower one finds them on its next try
                if left and not isinstance(error, ImportError):
                    time.sleep(0.2 + os.getpid() % 10 / 10)
                    continue
                # the address may hold a password, and the driver's own words may quote it
                raise InputError(
                    f"the storage cannot be reached ({type(error).__name__}); is the database there, and its driver "
                    "installed (pip install 'froc[postgresql]')?"
                ) from error
        raise AssertionError

    def _joined(self) -> optuna.Study:
        self._storage = optuna.storages.RDBStorage(self._url)
        study = optuna.create_study(
            study_name=self._name, storage=self._storage, load_if_exists=True,
            directions=["minimize"] * len(self._aim.names),
        )  # fmt: skip
        with quiet_optuna():
            study.set_metric_names(list(self._aim.names))
        return study
