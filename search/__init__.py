"""Searching: which configuration next, where it runs, which are sealed, what is certified.

    api                  `froc.search.run` and `froc.load`
    settings  search_options  build  job   what a user hands in, validated; made into a job; what a job is, and the listener to its progress
    continuation         `--after`: the run that a search goes on after
    plan                 what is fixed before the first trial, and whether a run folder was made by the same plan
    pipeline  stages     the whole job in order; its stages, each of which leaves files that the next starts from
    base_control         the base model measured first, and beside the candidates
    trial_loop           which trials are in flight and what is written down, in an order no clock changes
    trial/               one trial: configuration -> unlearned model -> search losses
    optuna/              Optuna: study, search space, pruning, learning rates that fit the model
    executors/  worker_start   where trials run: this process, worker processes, a Ray cluster
    sealed/              ranking, seal, calibration queries opened for sealed candidates only
    continual/           chains of runs
    growth               more trials in the same run folder, as long as nothing was opened
    external_model       an unlearned model from another tool, instead of trials
    reexecution          sealed configurations trained and measured once more, for an auditor
    comparison           methods mixed with the base model until they keep the same
    diagnosis            numbers of the chosen model that are shown and never certified
    run_folder           the files of a run; the only place that knows their names
    progress             how progress looks on a terminal

A search is handed a `froc.data.splits.SearchView`, which has no field for the calibration queries; they come out of
`froc.data.splits.Sealed` for a written seal only.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from froc.search.api import Run as Run
    from froc.search.api import run as run


def __getattr__(name: str) -> Any:
    if name not in ("run", "Run"):
        raise AttributeError(f"module 'froc.search' has no attribute {name!r}")
    return getattr(importlib.import_module("froc.search.api"), name)
