"""The normal form of text: without differences in Unicode form, case, blanks and punctuation. Torch-free.

Its digest counts openings (`froc.data.opening_ledger`) and assigns rows to a split (`froc.data.splits`), so that edits of
spelling neither make a query fresh nor move it.
"""

import unicodedata
from functools import lru_cache

from froc import hashing


@lru_cache(maxsize=1 << 16)
def normal_form(text: str) -> str:
    r"""Letters, digits, marks and symbols in compatibility form and folded case, with single blanks between words.

    Invisible format characters are removed; runs of other characters become one blank. Text of punctuation only keeps it, as
    all such texts would be equal otherwise.

    >>> normal_form("  Who is ADA\u2019s mother? ")
    'who is ada s mother'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (_letter(character) for character in folded)
    return " ".join("".join(kept).split()) or folded.strip()


def content(question: str, answer: str) -> str:
    """Digest of a row's normal form. Never stored: whoever guesses the text can compute it."""
    return hashing.hmac_sha256(b"froc row", normal_form(question), normal_form(answer))


def _letter(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return character if kind[0] in "LMNS" else " "
