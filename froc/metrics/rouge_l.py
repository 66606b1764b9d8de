"""ROUGE-L recall."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation


@dataclass(frozen=True)
class RougeL(Metric):
    """ROUGE-L recall: longest common subsequence of words, divided by the answer's words (Lin 2004; TOFU 2401.06121).

    Words are runs of letters and digits in any script, lower case; an answer without words is compared as written.
    There is no stemming, unlike in TOFU's tool, so inflected forms differ.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    fidelity: ClassVar[Fidelity] = "code-checked"
    one_means: ClassVar[str] = "the greedy continuation holds every word of the answer, in order"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) recall."""
        assert observation.written is not None
        assert observation.expected is not None
        common, _, length = overlaps(observation.written, observation.expected)
        return observation.measured(common / length)


def words(text: str) -> list[str]:
    """Lower-case words of a text.

    >>> words("Paris, in FRANCE!")
    ['paris', 'in', 'france']
    >>> words("snake_case")
    ['snake', 'case']
    """
    return re.findall(r"[^\W_]+", text.lower()) or text.split()


def overlaps(written: Sequence[str], expected: Sequence[str]) -> NDArray[np.float64]:
    """(3, n): words of the longest common subsequence, words written, and words expected (NaN where there are none).

    >>> overlaps(["She lives in Paris now"], ["lives in Paris, France"]).ravel().tolist()
    [3.0, 5.0, 4.0]
    """
    pairs = [(words(text), words(reference)) for text, reference in zip(written, expected, strict=True)]
    counts = [
        (common(found_words, reference_words), len(found_words), len(reference_words) or np.nan)
        for found_words, reference_words in pairs
    ]
    return np.array(counts, dtype=np.float64).reshape(-1, 3).T


def common(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence; a row of its table is the bits of one number (Hyyrö 2004).

    >>> common("abcd", "acbd")
    3
    """
    at: dict[Hashable, int] = {}
    for place, word in enumerate(first):
        at[word] = at.get(word, 0) | 1 << place
    whole = row = (1 << len(first)) - 1
    for word in second:
        match = row & at.get(word, 0)
        row = (row + match | row - match) & whole
    return len(first) - row.bit_count()
