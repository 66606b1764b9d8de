"""Gibberish."""

import unicodedata
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation
from froc.metrics.rouge_l import words


@dataclass(frozen=True)
class Gibberish(Metric):
    """How far the written answer is from language: the larger of the shares of repeated words and of non-text characters.

    Repetition: the share of 2- and 3-grams of words that occurred before, weighted 1/3 and 2/3; texts of two words have
    2-grams only, and a single word repeats nothing. Non-text characters: controls other than white space, private and
    unassigned characters, pictures and the replacement character. A text without letters and digits, or an empty one,
    scores 1. Wrong but well-formed text is not detected, nor is repetition where words are not separated by blanks.

    Our reading of RWKU's fluency (2406.10890), the entropy of 2- and 3-grams with weights 2/3 and 4/3, for short
    answers, for which entropy is uninformative.
    """

    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    fidelity: ClassVar[Fidelity] = "reading"
    one_means: ClassVar[str] = "what is written is no language: nothing, signs, or one thing over and over"
    finds: ClassVar[Literal["knowledge", "faults"]] = "faults"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) the larger of both shares."""
        assert observation.written is not None
        return observation.measured(np.array([gibberish(text) for text in observation.written], dtype=np.float64))


def gibberish(text: str) -> float:
    """The larger of both shares.

    >>> gibberish("She was born in Lyon.") < gibberish("la la la la la la la la")
    True
    """
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
