"""Searching: which configuration next, where it runs, which are sealed, what is certified.

    api                  `froc.search.run` and `froc.load`
    settings  search_options  build  job   the user's options, validated; a job built from them; the job and its listener
    machine              where trials are computed: devices, workers, threads
    plan  earlier_plan   what is fixed before the first trial; entries of the plan that a run folder already has
    pipeline  stages     the whole job in order; its stages, each of which starts from the files of the one before
    prior_run            what `--like` takes from an earlier run: options and first trials, and nothing of its calibration
    positive_control     measuring the base model, first and beside the candidates
    trial_loop           trials in flight and their log, in an order that does not depend on timing
    trial/               one trial: configuration -> unlearned model -> search losses
    optuna/              Optuna: study, search space, pruning, learning rates that fit the model
    executors/  worker_start   where trials run: this process, worker processes, a Ray cluster
    sealed/              ranking, seal, calibration queries opened for sealed candidates only
    continual/           chains of runs; `predecessor`: the run that `--after` names
    trial_extension      more trials in the same run folder, as long as nothing was opened
    external_model       an unlearned model from another tool, instead of trials
    extend               a run that certified nothing continued with fresh queries
    reexecution  rebuilding  sealed configurations trained and measured once more, for an auditor; the job of a finished run
    comparison           methods mixed with the base model until all retain the same performance
    diagnosis  drift     numbers of the chosen model, and of how far all sealed ones moved, that are shown and never certified
    run_folder           the files of a run; the only place that knows their names
    progress             progress in a terminal

A search receives a `froc.data.splits.SearchView`, which has no field for the calibration queries; `froc.data.splits.Sealed`
returns them only for a written seal.
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
