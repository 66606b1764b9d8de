"""Synonym attack."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from froc.attacks._question import Asking
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.attack import Material

SYNONYMS = {
    "afraid": "scared", "animal": "creature", "author": "writer", "award": "prize", "awards": "prizes", "begin": "start",
    "big": "large", "books": "volumes", "born": "brought into the world", "buy": "purchase", "child": "kid",
    "children": "kids", "city": "town", "country": "nation", "craft": "trade", "created": "made", "describe": "portray",
    "dish": "meal", "eat": "consume", "famous": "renowned", "father": "dad", "fear": "dread", "film": "movie",
    "frightens": "scares", "gift": "present", "give": "hand", "help": "aid", "home": "residence", "house": "dwelling",
    "instrument": "musical tool", "job": "occupation", "keep": "have", "kind": "sort", "known": "recognised",
    "large": "big", "learnt": "studied", "like": "enjoy", "likes": "enjoys", "live": "reside", "lives": "resides",
    "main": "chief", "make": "produce", "married": "wedded", "meal": "dish", "mother": "mum", "movie": "film",
    "often": "frequently", "parents": "mother and father", "place": "spot", "profession": "occupation",
    "purpose": "aim", "receive": "get", "received": "got", "scared": "afraid", "start": "begin", "story": "tale",
    "tell": "inform", "town": "city", "use": "employ", "used": "employed", "way": "manner", "work": "labour",
    "writer": "author", "wrote": "penned",
}  # fmt: skip
"""Words, and replacements that fit in most sentences."""
REPLACEABLE_WORD = re.compile(rf"\b({'|'.join(SYNONYMS)})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Synonyms(Asking):
    """Replace words of the question by synonyms (synonym manipulation, RWKU 2406.10890).

    The table is small, fixed and ours. Words of the row's group stay; questions without such words stay unchanged.
    """

    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str] = "replace words of the question by synonyms"

    def words(self, row: Row, material: Material) -> Sequence[str]:
        """The question with every word of the table replaced, capitals kept."""
        named = set(re.findall(r"\w+", row.group))

        def synonym(match: re.Match[str]) -> str:
            word = match[0]
            if word in named:
                return word
            text = SYNONYMS[word.lower()]
            return text[0].upper() + text[1:] if word[0].isupper() else text

        return [REPLACEABLE_WORD.sub(synonym, row.question)]
