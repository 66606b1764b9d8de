"""What stays of a row when it is written otherwise: Unicode form, case, blanks and punctuation do not count. Torch-free.

By its digest openings are counted (`froc.data.opening_ledger`) and rows fall on a side of the split (`froc.data.task`), so that an edit that
changes nothing about what is asked makes no fresh query and moves none.
"""

import unicodedata
from functools import lru_cache

from froc import hashing


@lru_cache(maxsize=1 << 16)
def normal_form(text: str) -> str:
    """Letters, digits, marks and symbols in compatibility form and folded case, with single blanks between words.

    Invisible format characters are dropped; every other run of characters is one blank. A text of nothing else (punctuation
    alone) stays as it is, but for its Unicode form and outer blanks: otherwise all such texts would be one.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (_letter(character) for character in folded)
    return " ".join("".join(kept).split()) or folded.strip()


def content(question: str, answer: str) -> str:
    """SHA-256 of a row's normal form. To be kept in memory alone: who guesses the text can make it again."""
    return hashing.hmac_sha256(b"froc row", normal_form(question), normal_form(answer))


def _letter(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return character if kind[0] in "LMNS" else " "
