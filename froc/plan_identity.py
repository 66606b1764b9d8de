"""Which entries of a plan make it another plan, and the digest of those."""

from collections.abc import Mapping
from typing import Any

from froc import hashing

VOLATILE = (
    "before",
    "created",
    "environment",
    "estimand",
    "extends",
    "froc",
    "notes",
    "questions",
    "rates",
    "tokenizer",
)
"""Fields in which a resumed run may differ from the one that wrote the plan; `estimand` and `tokenizer` follow from others."""


def identity(document: Mapping[str, Any]) -> str:
    """Digest (64 hexadecimal digits) of what a search was told: the same on the day after, and on another machine."""
    entries = {key: value for key, value in document.items() if key not in VOLATILE}
    if not entries.get("plugins"):
        entries.pop("plugins", None)  # plans of older versions do not say that there is none
    return hashing.sha256_json(entries)
