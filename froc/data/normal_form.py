"""The normal form of text: without differences in Unicode form, case, blanks and punctuation. Torch-free.

Its digest counts openings (`froc.data.opening_ledger`) and assigns rows to a split (`froc.data.splits`), so that edits of
spelling neither make a query fresh nor move it.
"""

import unicodedata
from functools import lru_cache

from froc import hashing

IGNORABLE = (
    range(0x034F, 0x0350), range(0x115F, 0x1161), range(0x17B4, 0x17B6), range(0x180B, 0x1810), range(0x2060, 0x2070),
    range(0x3164, 0x3165), range(0xFE00, 0xFE10), range(0xFFA0, 0xFFA1), range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000),
)  # fmt: skip
"""Code points with the property Default_Ignorable_Code_Point (Unicode 15, DerivedCoreProperties) that are no format characters."""


@lru_cache(maxsize=1 << 16)
def normal_form(text: str) -> str:
    r"""Letters, digits, marks and symbols in compatibility form and folded case, with single blanks between words.

    Invisible characters (format characters, and what Unicode calls default-ignorable: variation selectors, fillers, joiners) are
    removed; runs of other characters become one blank. Text of punctuation only keeps it, as all such texts would be equal otherwise.

    >>> normal_form("  Who is ADA\u2019s mother? ")
    'who is ada s mother'
    """
    # before composing, which an invisible character between a letter and its mark would prevent
    visible = text if text.isascii() else "".join(character for character in text if not _invisible(character))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    kept = (_letter(character) for character in folded)
    return " ".join("".join(kept).split()) or folded.strip()


def content(question: str, answer: str) -> str:
    """Digest of a row's normal form. Never stored: whoever guesses the text can compute it."""
    return hashing.hmac_sha256(b"froc row", normal_form(question), normal_form(answer))


def _letter(character: str) -> str:
    if _invisible(character):
        return ""
    return character if unicodedata.category(character)[0] in "LMNS" else " "


def _invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or any(ord(character) in span for span in IGNORABLE)
