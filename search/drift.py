"""How far unlearning moved the hidden states of forgotten and retained prompts, per sealed configuration: a diagnostic.

The paper relates configuration, semantic shift and utility; this draws that relation for a run. Measured on search queries and after the
certificate; nothing is certified, ranked or chosen by it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import FORGETTING, UTILITY, Query
from froc.errors import FrocError
from froc.models.base import read_weights
from froc.search.diagnosis import look
from froc.search.executors import Executor
from froc.search.job import Job
from froc.search.run_folder import Folder, write_json
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import KeptWeights, Work

LOG = logging.getLogger("froc")
POOLS = (FORGETTING, UTILITY)
QUERIES = 64
"""Search queries of each pool that are looked at, at most."""
States = NDArray[np.float32]


@dataclass(frozen=True)
class MeasureDrift(Work):
    """Measure how far configurations' states moved from the base model's. kept: config -> its parameters."""

    activity: ClassVar[str] = "measuring the drift of hidden states"

    kept: Mapping[str, KeptWeights] = field(repr=False)

    def __call__(self, runner: TrialRunner) -> dict[str, dict[str, dict[str, float]]]:
        """config -> pool -> drift."""
        trainable = runner.base.trainable
        trainable.activate([0])
        runner.base.restore()
        before = {pool: _states(runner, pool) for pool in POOLS}
        moved = {}
        for config, kept in self.kept.items():
            trainable.load(kept if isinstance(kept, Mapping) else read_weights(kept))
            moved[config] = {pool: drift(before[pool], _states(runner, pool)) for pool in POOLS}
        return moved


def record(job: Job, folder: Folder, executor: Executor, candidates: list[dict[str, Any]]) -> None:
    """Write `drift.json` for the sealed candidates whose parameters are there, unless it exists; a failure is logged, never raised."""
    paths = {c["config"]: folder.weights(c["config"]) for c in candidates if folder.weights(c["config"]).is_file()}
    if folder.drift.is_file() or not paths:
        return
    try:
        kept = {config: read_weights(path) if executor.remote else path for config, path in paths.items()}
        [moved] = executor.each([MeasureDrift(kept)])
    except Exception as error:  # for display alone: whatever it is, the certificate does not depend on it
        LOG.warning("drift is missing: %s", error if isinstance(error, FrocError) else type(error).__name__)
        return
    means = {each.config: each.search for line in folder.log() for each in line.configurations() if each.search}
    rows = [
        {
            "config": c["config"],
            "method": c["method"],
            "search": means.get(c["config"], {}),
            "drift": moved[c["config"]],
        }
        for c in candidates
        if c["config"] in moved
    ]
    counts = {pool: len(_sample(job.view.queries[pool])) for pool in POOLS}
    write_json(folder.drift, {"format": 1, "queries": counts, "configurations": rows})


def _states(runner: TrialRunner, pool: str) -> States:
    """(n, width) states after the last block at the position that predicts the answer's first token."""
    rows = tuple(query.row for query in _sample(runner.view.queries[pool]))
    hidden = look(runner.base, runner.view, rows, frozenset({"hidden"})).hidden
    assert hidden is not None
    return np.asarray(hidden[:, -1], dtype=np.float32)


def _sample(queries: tuple[Query, ...]) -> tuple[Query, ...]:
    """At most `QUERIES` of them, evenly spaced: the rows of a group stand together."""
    return queries[:: -(-len(queries) // QUERIES) or 1]


def drift(before: States, after: States) -> dict[str, float]:
    """Mean relative Euclidean distance and mean cosine distance of states (n, width), to 4 decimals.

    >>> drift(np.array([[3.0, 4.0]]), np.array([[3.0, 0.0]]))
    {'relative_l2': 0.8, 'cosine': 0.4}
    """
    lengths, moved = np.linalg.norm(before, axis=1), np.linalg.norm(after - before, axis=1)
    scale = np.maximum(lengths * np.linalg.norm(after, axis=1), np.finfo(np.float32).tiny)
    cosine = np.einsum("ij,ij->i", before, after) / scale
    relative = moved / np.maximum(lengths, np.finfo(np.float32).tiny)
    # exact numbers would identify the texts behind them
    return {
        "relative_l2": round(float(relative.mean()), 4),
        "cosine": round(max(0.0, 1.0 - float(cosine.mean())), 4),
    }
