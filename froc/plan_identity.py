"""The digest that identifies a plan, and the entries that it does not depend on."""

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
    """Digest (64 hexadecimal digits) of a search's settings; the same on another day and another machine."""
    entries = {key: value for key, value in document.items() if key not in VOLATILE}
    if not entries.get("plugins"):
        entries.pop("plugins", None)  # plans of older versions have no empty entry
    return hashing.sha256_json(entries)
