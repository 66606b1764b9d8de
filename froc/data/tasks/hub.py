"""`hf:ORG/NAME[:CONFIGURATION][@REVISION]`: a data set of the Hugging Face hub whose splits are the files of a task folder.

The commit that the name stands for when it is read is part of the task's name, and so of the plan. Data sets are read by the
library `datasets`, which runs no code of theirs. To read the same rows again, give the commit.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from froc import atomic
from froc.data.task import WORDINGS, Task
from froc.data.tasks import folder
from froc.errors import InputError

SCHEME = "hf:"
SPLITS = ("forget", "retain", "forget_queries", "retain_queries", WORDINGS, "holdout")
_ADDRESS = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(:(?P<configuration>[\w.-]+))?(@(?P<revision>[\w./-]+))?", re.ASCII)


def load(text: str) -> Task:
    """The task of a data set's splits `SPLITS`, of which `forget` and `retain` must be there.

    Raises InputError for an address that is none, where `datasets` is not installed, where the hub does not answer, and as
    `froc.data.tasks.folder.load` does.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no data set of the hub; give hf:ORG/NAME, perhaps with :CONFIGURATION and @REVISION"
        )
    name, configuration = match["name"], match["configuration"]
    try:
        commit = resolved(name, match["revision"])
        splits = downloaded(name, configuration, commit)
    except ImportError as error:
        raise InputError(
            f"{text} needs the library datasets: pip install 'froc[hub]', or give a task folder"
        ) from error
    except Exception as error:  # the hub's client hands on errors of whichever library it reaches the network with
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{text} could not be had from the hub ({type(error).__name__}: {first}); mend the address or the network, or "
            "give a task folder"
        ) from error
    present = [split for split in SPLITS if split in splits]
    missing = next((split for split in ("forget", "retain") if split not in present), None)
    if missing is not None:
        raise InputError(
            f"{text} has no split {missing!r} (it has: {', '.join(sorted(splits))}); name its splits {', '.join(SPLITS)}, "
            "or download a benchmark's files and give --task NAME:PART --data DIR"
        )
    with TemporaryDirectory() as place:
        for split in present:
            # columns that are not read may hold dates or bytes, which JSON lacks
            lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in splits[split])
            atomic.write_text(Path(place) / f"{split}.jsonl", "".join(lines))
        task, _ = folder.load(Path(place))
    whole = f"{SCHEME}{name}{f':{configuration}' if configuration else ''}@{commit}"
    return replace(task, name=whole, notes=(f"rows are those of the data set {whole}", *task.notes))


def resolved(name: str, revision: str | None) -> str:
    """The commit, 40 hexadecimal digits, that a revision (by default the main branch) is now."""
    import huggingface_hub

    client: Any = huggingface_hub
    return str(client.HfApi().dataset_info(name, revision=revision).sha)


def downloaded(name: str, configuration: str | None, commit: str) -> Mapping[str, Iterable[Mapping[str, Any]]]:
    """Split -> rows of a data set at a commit; `datasets` runs no script of a data set since its version 4."""
    from importlib import import_module

    library: Any = import_module("datasets")
    splits: Mapping[str, Iterable[Mapping[str, Any]]] = library.load_dataset(name, configuration, revision=commit)
    return splits
