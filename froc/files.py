"""Files that appear whole or not at all. Torch-free."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)
