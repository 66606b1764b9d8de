"""`hub:ID@REVISION` instead of a model folder: that revision's files, from the Hugging Face hub or its cache.

A revision is required: a branch's content changes, and what is verified must not. A tag can be moved, too; the 40 digits of a
commit cannot.
"""

import re
from pathlib import Path
from typing import Any

from froc.errors import InputError

SCHEME = "hub:"
_ADDRESS = re.compile(r"hub:(?P<id>[\w.-]+(/[\w.-]+)?)@(?P<revision>[\w./-]+)", re.ASCII)
MOVING = re.compile(r"main|master|head|(refs/)?heads/.*|refs/(?!tags/).*", re.IGNORECASE)
"""Usual names of branches, and references other than tags: pull requests, conversions."""


def local(model: Path | None) -> Path | None:
    """The folder itself, or the local folder of the hub's files after downloading them.

    InputError for an address without a revision, if huggingface-hub is not installed, or if the hub does not answer.
    """
    # a Path collapses double slashes, so the address is parsed as text
    text = "" if model is None else str(model)
    if not text.startswith(SCHEME):
        return model
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} names no revision of a model; give hub:ID@REVISION with a commit or a tag, such as hub:OWNER/NAME@3f2a91c"
        )
    if MOVING.fullmatch(match["revision"]):
        raise InputError(
            f"{text}: {match['revision']} is a branch, which changes; give the commit (40 digits) or a tag that was verified"
        )
    try:
        return Path(download(match["id"], match["revision"]))
    except ImportError as error:
        raise InputError(
            f"{text} needs the package huggingface-hub: pip install huggingface-hub, or give a folder"
        ) from error
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{text} could not be had from the hub ({type(error).__name__}: {first}); mend the address or the network, or give a folder"
        ) from error


def download(name: str, revision: str) -> str:
    """Every file of a revision, as links into the hub's cache; a file left out would not be checked."""
    import huggingface_hub

    client: Any = huggingface_hub
    return str(client.snapshot_download(name, revision=revision))
