"""The name of a base model: a folder, or a Hugging Face hub id. Torch-free, so that wrong names fail fast."""

import re
from pathlib import Path

from froc.errors import InputError

HUB_ID = re.compile(r"(?!.*(\.\.|--))\w[\w.-]*(/\w[\w.-]*)?")


def refuse_no_folder(folder: Path) -> None:
    """InputError where the folder of an external unlearned model does not exist."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; --unlearned names one with safetensors, as save_pretrained makes it")


def refuse_absent(name: str) -> None:
    """InputError for names that are neither a folder nor a possible hub id, before the hub is asked for them."""
    folder = Path(name)
    if folder.is_dir():
        return
    if folder.exists():
        raise InputError(f"the model {name} is a file; give the folder that save_pretrained made")
    known = HUB_ID.fullmatch(name) is not None
    # where the folder OWNER exists, OWNER/NAME is a mistyped path, unless it is in the hub's cache
    if known and "/" in name and folder.parent.is_dir():
        from huggingface_hub import try_to_load_from_cache

        known = try_to_load_from_cache(name, "config.json") is not None
    if not known:
        raise InputError(f"the model folder {name} does not exist; give a folder or a hub id")
