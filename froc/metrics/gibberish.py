"""Gibberish."""

import unicodedata
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics.rouge_l import words


@dataclass(frozen=True)
class Gibberish(Metric):
    """How far the written answer is from text: repeated words or characters that are no text, whichever is the larger share.

    Our reading of RWKU's fluency (2406.10890), entropy of 2- and 3-grams at weights 2/3 and 4/3, for short answers, where
    entropy tells little: the share of 2- and 3-grams of words that have stood before, at weights 1/3 and 2/3; texts of two
    words have 2-grams only, and a single word repeats nothing. Characters that are no text: controls but for white space,
    private and unassigned ones, pictures and the replacement character. A text without letters and digits, or an empty one,
    is gibberish altogether. What is wrong but well formed is not found, nor repetition where no blanks part the words.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    one_means: ClassVar[str] = "what is written is no language: nothing, signs, or one thing over and over"
    finds: ClassVar[Literal["knowledge", "faults"]] = "faults"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) the larger share."""
        assert observation.written is not None
        return observation.measured(np.array([gibberish(text) for text in observation.written], dtype=np.float64))


def gibberish(text: str) -> float:
    """The larger of both shares."""
    if not any(map(str.isalnum, text)):
        return 1.0
    kinds = [unicodedata.category(character) for character in text if not character.isspace()]
    strange = sum(kind[0] == "C" or kind == "So" for kind in kinds) / len(kinds)
    word_list = words(text)
    repeated = [_repeated(word_list, n) for n in (2, 3) if len(word_list) >= n]
    weights = [1 / 3, 2 / 3][: len(repeated)]
    again = float(np.average(repeated, weights=weights)) if repeated else 0.0
    return max(strange, again)


def _repeated(word_list: list[str], n: int) -> float:
    grams = list(zip(*(word_list[i:] for i in range(n)), strict=False))
    return 1.0 - len(set(grams)) / len(grams)
