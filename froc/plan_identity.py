"""The digest that identifies a plan, the entries that it does not depend on, and the label of its queries' ids."""

from collections.abc import Mapping
from typing import Any

from froc import hashing

VOLATILE = (
    "before",
    "created",
    "environment",
    "estimand",
    "extends",
    "fidelity",
    "froc",
    "named_risks",
    "notes",
    "questions",
    "rates",
    "tokenizer",
)
"""Fields in which a resumed run may differ from the one that wrote the plan; `estimand`, `fidelity`, `named_risks` and `tokenizer` follow from others and the version."""


def identity(document: Mapping[str, Any]) -> str:
    """Digest (64 hexadecimal digits) of a search's settings; the same on another day and another machine."""
    entries = {key: value for key, value in document.items() if key not in VOLATILE}
    if not entries.get("plugins"):
        entries.pop("plugins", None)  # plans of older versions have no empty entry
    return hashing.sha256_json(entries)


def draw_label(task: str, split_seed: int, base: str) -> str:
    """The label under which a plan's query ids are renamed (64 hexadecimal digits).

    Some bounds read the queries in the order of their ids. So nobody chooses the label by itself, for whoever could would choose the
    order in which the same losses look best: another one needs other data, another split or another base model.

    task: digest of the task. split_seed: seed of its split. base: digest of the base model.
    """
    return hashing.sha256_json([task, split_seed, base])


def stage_seed(label: str | None, number: int, rows: str) -> str:
    """Seed (64 hexadecimal digits) of a further stage, from which the order of its units follows, so that nobody chooses one.

    label: of the plan's split. rows: keyed digest of the stage's rows.
    """
    return hashing.sha256_json([label or "", number, rows])
