"""Token F1 of an open answer."""

import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation

ARTICLES = frozenset({"a", "an", "the"})
SIGNS = re.compile(f"[{re.escape(string.punctuation)}]")


@dataclass(frozen=True)
class TokenF1(Metric):
    """F1 of the written answer's words as a multiset, in any order (SQuAD 1606.05250).

    Case, ASCII punctuation and articles do not count; a text of nothing else is kept as it is.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    fidelity: ClassVar[Fidelity] = "formula"
    one_means: ClassVar[str] = "the written answer has the answer's words and no others, in any order"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) F1."""
        assert observation.written is not None
        assert observation.expected is not None
        pairs = [
            (bag(text), bag(reference))
            for text, reference in zip(observation.written, observation.expected, strict=True)
        ]
        f1 = [
            2 * (words & reference_words).total() / (words.total() + reference_words.total() or np.nan)
            for words, reference_words in pairs
        ]
        return observation.measured(np.array(f1, dtype=np.float64))


def bag(text: str) -> Counter[str]:
    """Words of a text, with how often each stands there.

    >>> sorted(bag("The baker and the miller").items())
    [('and', 1), ('baker', 1), ('miller', 1)]
    """
    kept = [word for word in SIGNS.sub("", text.lower()).split() if word not in ARTICLES]
    return Counter(kept or text.lower().split())
