"""Area under the curve of a recommender, query by query."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation
from froc.measuring.placement import placement
from froc.metrics._options import lacking, wrong


@dataclass(frozen=True)
class RecommendationAuc(Metric):
    """Share of retained rows with the other answer that the model places below the query, ties counted half.

    For questions with two answers (will the user like this item: Yes or No). A row is placed by the log-probability per
    token of its own answer minus that of the likeliest other one: for a row whose answer is Yes, among rows whose
    answer is No, that is the usual ranking score, whose area under the curve TALLRec (2305.00447) and E2URec
    (2403.03536) report. Over a fixed bank this placement value is a loss of each query by itself, and its mean over
    queries with one answer is exactly the area under the curve between them and the bank's rows with the other answer.
    1/2 means that the model ranks by chance.

    The bank are rows to keep that are trained on: a model that knows them by heart is flattered, before and after, and
    on retain queries the drop against the base model counts. A query is unmeasured where the bank holds no row with
    the other answer, or one that could not be measured.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("others",)
    bank: ClassVar[Literal["", "holdout", "forget", "retain"]] = "retain"
    fidelity: ClassVar[Fidelity] = "formula"
    one_means: ClassVar[str] = "every retained row with the other answer is ranked on the other side"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) placement values; NaN where the bank holds no row with the other answer."""
        assert observation.bank is not None
        margins, answers = _margin(observation), np.array([row.answer for row in observation.rows])
        with_others = [place for place, row in enumerate(observation.bank.rows) if row.others]
        bank_margins = -_margin(observation.bank.at(with_others)) if with_others else np.empty(0)
        bank_answers = np.array([observation.bank.rows[place].answer for place in with_others])
        values = np.full(len(margins), np.nan)
        for answer in np.unique(answers):
            same, opposed = answers == answer, bank_margins[bank_answers != answer]
            if len(opposed) and not np.isnan(opposed).any():
                values[same] = placement(margins[same], opposed)
        return observation.measured(values)

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: rows without the other answer. Empty where it applies."""
        return lacking(rows)


def _margin(observation: Observation) -> NDArray[np.float64]:
    """(n,) nats per token by which a row's own answer is likelier than the likeliest other one."""
    margin: NDArray[np.float64] = observation.mean_logp - wrong(observation).max(axis=1)
    return margin
