"""The name of a base model: a folder, or an id of the Hugging Face hub. Torch-free, so that a wrong one costs no time."""

import re
from pathlib import Path

from froc.errors import InputError

HUB_ID = re.compile(r"(?!.*(\.\.|--))\w[\w.-]*(/\w[\w.-]*)?")


def refuse_no_folder(folder: Path) -> None:
    """InputError where there is no folder for an unlearned model from elsewhere."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; --unlearned names one with safetensors, as save_pretrained makes it")


def refuse_absent(name: str) -> None:
    """InputError for what is neither a folder nor may be a hub id: asking the hub for it would answer something else."""
    folder = Path(name)
    if folder.is_dir():
        return
    if folder.exists():
        raise InputError(f"the model {name} is a file; give the folder that save_pretrained made")
    known = HUB_ID.fullmatch(name) is not None
    # beside a folder that is there, OWNER/NAME is a path that was mistyped, unless the hub has been asked for it before
    if known and "/" in name and folder.parent.is_dir():
        from huggingface_hub import try_to_load_from_cache

        known = try_to_load_from_cache(name, "config.json") is not None
    if not known:
        raise InputError(f"the model folder {name} does not exist; give a folder or a hub id")
