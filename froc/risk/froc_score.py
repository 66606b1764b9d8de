"""FROC as published (2512.13337): the score e_R. Torch-free.

Everything here is a *score*: `scores` computes s, r, both soft margins and e_R. They steer a search
(`froc search --objective froc`) and draw a picture; no certificate is made from them, since e_R

* is unbounded: the softplus of a large distortion is that distortion, and no tail bound for losses in [0, 1] holds;
* is a function of four averages over data sets: no mean of independent losses, so there is no n to put into a bound;
* is coupled: max and min run over configurations, so that trying one more changes the score of all others.

Nothing here is a *bound*: the paper's p-value and conformal risk of the score, after C-RAG (2402.03181), need losses in [0, 1]
and independent units, which e_R is not made of. Valid bounds are in `froc.bounds`, for per-query losses with a budget per risk.

Sources: reviews of the paper (no code was found) give s, r, the two margins and e_R. They do not give the value of
alpha_unlearn, nor whether w_f and w_u are normalised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from froc.bounds import FloatArray
from froc.data.task import FORGETTING, UTILITY
from froc.errors import InputError

MIN_LOSS = 1e-6
"""Nats per token: smaller average losses are read as this one, since float32 log-probabilities do not tell them from 0."""
Means = Mapping[str, Mapping[str, float]]
"""risk -> {loss, accuracy, base_loss, base_accuracy}, as a line of trials.jsonl holds them under `averages`."""


@dataclass(frozen=True)
class Weighing:
    """The free parameters of e_R.

    alpha_unlearn: forgetting score s below which the margin grows linearly. The default 0 is our choice: a loss of one
    nat per token at the reference's accuracy, or less loss where accuracy fell. A guess among V tokens has
    s = log log V + the accuracy lost, about 3.3 for V = 32,000. w_f, w_u: weights of forgetting and utility, 0 or larger.
    """

    alpha_unlearn: float = 0.0
    w_f: float = 0.5
    w_u: float = 0.5

    def __post_init__(self) -> None:
        if not all(np.isfinite((self.alpha_unlearn, self.w_f, self.w_u))) or min(self.w_f, self.w_u) < 0:
            raise InputError("alpha_unlearn, w_f and w_u must be numbers, and both weights 0 or larger")
        if self.w_f + self.w_u <= 0:
            raise InputError("w_f and w_u are both 0; give at least one of them weight")


@dataclass(frozen=True)
class Averages:
    """Data-set averages of m configurations, (m,) each.

    loss_u, loss_r: mean negative log-likelihood of the answer on forget and retain data, nats per token, finite, >= 0.
    acc_u, acc_r: mean share of answer tokens that are predicted, in [0, 1]. Raises InputError for anything else.
    """

    loss_u: FloatArray
    acc_u: FloatArray
    loss_r: FloatArray
    acc_r: FloatArray

    def __post_init__(self) -> None:
        columns = {field.name: np.asarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)}
        if len({column.shape for column in columns.values()}) > 1 or columns["loss_u"].ndim != 1:
            raise InputError("the four averages must be lists with one number per configuration")
        for name, column in columns.items():
            limit = 1.0 if name.startswith("acc") else np.inf
            if not bool(np.all((column >= 0) & (column <= limit) & np.isfinite(column))):
                raise InputError(f"{name} holds an average that is no number from 0 to {limit:g}; leave that trial out")
            object.__setattr__(self, name, column)

    @classmethod
    def of(cls, trials: Sequence[Means]) -> "Averages":
        """Those of the unlearned models of `trials`."""
        return cls._read(trials, "")

    @classmethod
    def base_of(cls, trials: Sequence[Means]) -> "Averages":
        """Those of the base models that `trials` began with."""
        return cls._read(trials, "base_")

    @classmethod
    def _read(cls, trials: Sequence[Means], prefix: str) -> "Averages":
        wanted = [(risk, prefix + quantity) for risk in (FORGETTING, UTILITY) for quantity in ("loss", "accuracy")]
        try:
            table = [[float(trial[risk][name]) for risk, name in wanted] for trial in trials]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a trial lacks the averages of {FORGETTING} or {UTILITY}; run it again") from error
        return cls(*np.array(table, dtype=np.float64).reshape(-1, len(wanted)).T)


@dataclass(frozen=True)
class Scores:
    """What the paper computes for m configurations, (m,) each: s, r, their margins and e_R. Scores, not bounds."""

    s: FloatArray
    r: FloatArray
    margin_f: FloatArray
    margin_u: FloatArray
    e_r: FloatArray


def scores(averages: Averages, weighing: Weighing | None = None, reference: Averages | None = None) -> Scores:
    """Score configurations; smaller e_R is better.

    s = log Loss_U + max Acc_U - Acc_U: larger means more is forgotten.
    r = log Loss_R - log min Loss_R + max Acc_R - Acc_R: 0 for what is best in both, larger means more is spoiled.
    e_R = w_f softplus(alpha_unlearn - s) + w_u softplus(r).

    max and min run over `reference`; over `averages` themselves where none is given, as published. Then r >= 0, and e_R is at
    least w_u log 2 for all. The search gives the base model alone: so the score of a finished trial stays what
    Optuna was told, whatever is tried after it.
    """
    against = averages if reference is None else reference
    if not len(against.loss_u):
        raise InputError("max and min over no configuration; give at least one as reference")
    return _scores(averages, against.acc_u.max(), against.loss_r.min(), against.acc_r.max(), weighing or Weighing())


def against_base(trials: Sequence[Means], weighing: Weighing | None = None) -> Scores:
    """Scores of trials, each with its own base model as the only reference: what `--objective froc` minimizes."""
    base = Averages.base_of(trials)
    return _scores(Averages.of(trials), base.acc_u, base.loss_r, base.acc_r, weighing or Weighing())


def softplus(z: ArrayLike) -> FloatArray:
    """log(1 + e^z), without overflow."""
    return np.logaddexp(0.0, np.asarray(z, dtype=np.float64))


def _scores(averages: Averages, acc_u: ArrayLike, loss_r: ArrayLike, acc_r: ArrayLike, weighing: Weighing) -> Scores:
    """acc_u, loss_r, acc_r: what counts as best, one number or (m,)."""
    s = _log(averages.loss_u) + np.asarray(acc_u) - averages.acc_u
    r = _log(averages.loss_r) - _log(loss_r) + np.asarray(acc_r) - averages.acc_r
    margin_f, margin_u = softplus(weighing.alpha_unlearn - s), softplus(r)
    return Scores(s, r, margin_f, margin_u, weighing.w_f * margin_f + weighing.w_u * margin_u)


def _log(loss: ArrayLike) -> FloatArray:
    return np.log(np.maximum(loss, MIN_LOSS))
