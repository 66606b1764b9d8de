"""How true a method, metric or attack is to the paper that it is named after. Torch-free."""

from collections.abc import Mapping
from typing import Literal, get_args

Fidelity = Literal["code-checked", "formula", "reading", "own"]
"""A tag; `MEANINGS` says what each stands for."""

MEANINGS: Mapping[Fidelity, str] = {
    "code-checked": "agrees numerically with public code of the method; where it differs on purpose, its description says so",
    "formula": "the paper's or its code's formula, with values worked out by hand in tests",
    "reading": "part of it is our reading, since the paper could not be read in full or speaks of something else",
    "own": "defined here; there is no paper that it could differ from",
}


def least(*tags: Fidelity) -> Fidelity:
    """The tag of what is put together of several: the weakest of theirs.

    >>> least("code-checked", "formula"), least("own", "reading")
    ('formula', 'reading')
    """
    return max(tags, key=("code-checked", "own", "formula", "reading").index)


def of(plugin: type) -> Fidelity:
    """The tag of a plug-in class; `reading` for one of another package that states none.

    >>> of(type("Stated", (), {"fidelity": "formula"})), of(type("Silent", (), {}))
    ('formula', 'reading')
    """
    stated = getattr(plugin, "fidelity", "")
    return next((tag for tag in get_args(Fidelity) if tag == stated), "reading")
