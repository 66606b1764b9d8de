"""Diagnostics of the chosen model on search queries: numbers that are no means of losses, for display only.

Nothing here is a bound, and nothing is certified, ranked or chosen by it. It is computed after the certificate is
written, which stays valid if it fails.
"""

import logging
from collections.abc import Mapping
from typing import Any

import polars as pl

from froc.data.splits import SearchView
from froc.data.task import FORGETTING, UTILITY, Row
from froc.measuring.diagnostics import linear_cka, mia_auc, model_utility, priv_leak
from froc.measuring.metric import Metric, Observable, Observation
from froc.measuring.model_observation import observe
from froc.metrics.membership import Membership
from froc.models.base import Base, read_weights
from froc.models.batches import Limits, encode
from froc.models.memory import out_of_memory
from froc.models.trainable import Weights
from froc.plugins import make
from froc.risk.exchangeability import warnings
from froc.search.job import Job
from froc.search.run_folder import Folder, write_json

LOG = logging.getLogger("froc")
OBSERVABLES: frozenset[Observable] = frozenset({"hidden", "written", "others"})


def record(job: Job, folder: Folder, certificate: Mapping[str, Any]) -> bool:
    """Write the diagnostics of a run that chose a model, unless they are there; False where they could not be computed.

    What goes wrong (most of all too little memory) is written down by its kind and warned of in the run's log; the next call in
    this folder tries again. A run whose weights are gone, as those of older versions are, stays without.
    """
    chosen, known = certificate["chosen"], folder.read(folder.diagnostics)
    if chosen is None or (known is not None and "missing" not in known) or not folder.weights(chosen).is_file():
        return True
    document: dict[str, Any] = {"exchangeability": _exchangeability(job, folder, certificate)}
    try:
        document |= diagnose(job.base, job.view, read_weights(folder.weights(chosen)))
    except Exception as error:  # for display alone: whatever it is, the certificate does not depend on it
        document["missing"] = "not enough memory" if out_of_memory(error) else type(error).__name__
        LOG.warning("diagnostics are missing: %s", document["missing"])
    write_json(folder.diagnostics, document)
    return "missing" not in document


def diagnose(base: Base, view: SearchView, weights: Weights) -> dict[str, Any]:
    """JSON document. Afterwards the base model holds the chosen model's parameters.

    model_utility: TOFU's harmonic mean of probability, ROUGE-L recall and, where rows have other answers, truth ratio
        of retain queries, with the base model's.
    cka: of the last hidden state before the answer, per block, against the base model.
    mia_auc, priv_leak: of forget queries against the holdout, by Min-K.
    """
    base.trainable.activate([0])
    base.restore()
    before = {pool: _seen(base, view, pool) for pool in (FORGETTING, UTILITY)}
    base.trainable.load(weights)
    after = {pool: _seen(base, view, pool) for pool in (FORGETTING, UTILITY)}
    document: dict[str, Any] = {
        "model_utility": {"base": _utility(before[UTILITY]), "chosen": _utility(after[UTILITY])},
        "cka": {pool: _cka(before[pool], after[pool]) for pool in before},
    }
    if view.holdout:
        attack = Membership()
        bank = attack.familiar(look(base, view, view.holdout, frozenset()))
        auc = mia_auc(attack.familiar(after[FORGETTING]), bank)
        document |= {"mia_auc": _four(auc), "priv_leak": _four(priv_leak(auc))}
    return document


def _seen(base: Base, view: SearchView, pool: str) -> Observation:
    return look(base, view, tuple(query.row for query in view.queries[pool]), OBSERVABLES)


def look(base: Base, view: SearchView, rows: tuple[Row, ...], observables: frozenset[Observable]) -> Observation:
    """What the model shows of rows, with its present parameters."""
    encoded = encode(base.tokenizer, rows, view.template, Limits.of(base.model))
    with base.measuring():
        return observe(base.model, base.tokenizer, encoded, rows, observables)


def _utility(seen: Observation) -> float:
    wanted: Mapping[str, dict[str, Any]] = {"probability": {}, "rouge_l": {}, "truth_ratio": {"form": "margin"}}
    metrics = [make(Metric, name, params) for name, params in wanted.items()]
    return _four(model_utility([float(m.scores(seen).mean()) for m in metrics if not m.fits(seen.rows)]))


def _cka(before: Observation, after: Observation) -> list[float]:
    assert before.hidden is not None
    assert after.hidden is not None
    return [_four(linear_cka(before.hidden[:, k], after.hidden[:, k])) for k in range(before.hidden.shape[1])]


def _four(value: float) -> float:
    # an exact number would identify the texts behind it
    return round(float(value), 4)


def _exchangeability(job: Job, folder: Folder, certificate: Mapping[str, Any]) -> list[str]:
    """Do calibration losses look like independent draws? By the rows' groups and places in their file, which no table tells."""
    seal = folder.read(folder.seal) or {}
    losses, configs = pl.read_parquet(folder.calibration_losses), [row["config"] for row in seal["candidates"]]
    places = {row: place for rows in job.task.queries.values() for place, row in enumerate(rows)}
    lines = []
    for risk, queries in job.sealed.open(seal).items():
        if certificate["population"].get(risk) != "queries":
            continue
        rows = [(query.id, query.row.group or query.id, places.get(query.row, 0)) for query in queries]
        known = pl.DataFrame(rows, schema=["query", "unit", "place"], orient="row")
        lines += warnings(losses, risk=risk, configs=configs, unit=certificate["unit"][risk], positions=known)
    return lines
