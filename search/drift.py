"""How far unlearning moved the hidden states of forgotten and retained prompts, per sealed configuration: a diagnostic.

The paper relates configuration, semantic shift and utility; this draws that relation for a run. Measured on search queries and after the
certificate; nothing is certified, ranked or chosen by it.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from froc.data.task import FORGETTING, UTILITY
from froc.models.base import Base, read_weights
from froc.models.memory import out_of_memory
from froc.search.diagnosis import look
from froc.search.job import Job
from froc.search.run_folder import Folder, write_json

LOG = logging.getLogger("froc")
POOLS = (FORGETTING, UTILITY)
States = NDArray[np.float32]


def record(job: Job, folder: Folder) -> None:
    """Write `drift.json` for the sealed configurations whose parameters are there, unless it exists; a failure is logged, never raised."""
    seal = folder.read(folder.seal)
    if seal is None or folder.drift.is_file():
        return
    kept = [candidate for candidate in seal["candidates"] if folder.weights(candidate["config"]).is_file()]
    try:
        rows = _rows(job, folder, kept)
    except Exception as error:  # for display alone: whatever it is, the certificate does not depend on it
        LOG.warning("drift is missing: %s", "not enough memory" if out_of_memory(error) else type(error).__name__)
        return
    if rows:
        counts = {pool: len(job.view.queries[pool]) for pool in POOLS}
        write_json(folder.drift, {"format": 1, "queries": counts, "configurations": rows})


def _rows(job: Job, folder: Folder, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each configuration its search means and the drift of both pools. Afterwards the base model holds the last one's parameters."""
    if not kept:
        return []
    base = job.base
    base.trainable.activate([0])
    base.restore()
    before = {pool: _states(base, job, pool) for pool in POOLS}
    searched = {each.config: each.search for line in folder.log() for each in line.configurations() if each.search}
    rows = []
    for candidate in kept:
        base.trainable.load(read_weights(folder.weights(candidate["config"])))
        rows.append(
            {
                "config": candidate["config"],
                "method": candidate["method"],
                "search": searched.get(candidate["config"], {}),
                "drift": {pool: drift(before[pool], _states(base, job, pool)) for pool in POOLS},
            }
        )
    return rows


def _states(base: Base, job: Job, pool: str) -> States:
    """(n, width) states after the last block at the position that predicts the answer's first token."""
    rows = tuple(query.row for query in job.view.queries[pool])
    hidden = look(base, job.view, rows, frozenset({"hidden"})).hidden
    assert hidden is not None
    return np.asarray(hidden[:, -1], dtype=np.float32)


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
