"""ROUGE-L recall."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.metrics import Metric, Observed, Sight


@dataclass(frozen=True)
class RougeL(Metric):
    """ROUGE-L recall: longest common subsequence of words over the answer's words (Lin 2004; TOFU 2401.06121).

    Words are runs of letters and digits, lower case, of any script; an answer without words is compared as written.
    """

    reads: ClassVar[tuple[Sight, ...]] = ("written",)
    one_means: ClassVar[str] = "the greedy continuation holds every word of the answer, in order"

    def scores(self, seen: Observed) -> NDArray[np.float64]:
        """(n,) recall."""
        pairs = zip(seen.written or (), seen.expected or (), strict=True)
        return np.array([_recall(words(written), words(answer)) for written, answer in pairs], dtype=np.float64)


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"\w+", text.lower()) or text.split()


def _recall(written: list[str], answer: list[str]) -> float:
    longest = np.zeros(len(answer) + 1, dtype=np.int64)
    for word in written:
        match = np.array([word == other for other in answer], dtype=np.int64)
        # row of the LCS table: the best of extending a match or keeping what the left or upper cell had
        longest[1:] = np.maximum.accumulate(np.maximum(longest[1:], longest[:-1] + match))
    return float(longest[-1]) / len(answer)
