"""Words -> a job: task, split, search space, base model on its device, engine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from froc.errors import InputError

if TYPE_CHECKING:
    from search.plan import Settings
    from search.run import Job

LATER = (
    "population", "sample", "weights", "radius", "sequential", "objective", "weighing", "train", "pack", "sweep", "autocast",
)  # fmt: skip
"""Settings that came later: where they are not used, the embedded task's questions stay what they were."""


@dataclass(frozen=True)
class Machine:
    """Where and how trials are computed; None: by device."""

    device: str | None = None
    dtype: str | None = None
    checkpointing: bool = False
    compiled: bool = False


def job(
    settings: "Settings", folder: Path | None, model: str | None, split_seed: int | None, machine: Machine,
    training: Callable[[str, int, int], None],
) -> "Job":  # fmt: skip
    """Everything a search works on. training: is told (what, done, of) while the embedded model is made.

    Raises InputError for a task, model or option that does not go together.
    """
    from dataclasses import replace

    from froc import models
    from froc.data import split
    from froc.engine import Engine
    from froc.tasks import embedded
    from froc.tasks import folder as folders
    from search import space as spaces
    from search.run import Job

    if machine.dtype is not None and machine.dtype not in models.DTYPES:
        raise InputError(f"no dtype is called {machine.dtype!r}; there are: {', '.join(models.DTYPES)}")
    if folder is None and model is not None:
        raise InputError("--model needs --task: the embedded task brings its own model")
    if folder is None:
        task = embedded.task(questions=_questions(settings))
        named = None
    else:
        task, named = folders.load(folder)
    if split_seed is not None:
        task = replace(task, split_seed=split_seed)
    view, sealed = split(task, settings.share, settings.sample)
    methods, notes = spaces.choose(settings.methods, view)
    space = spaces.build(methods, task.space, settings.space)
    if settings.sampler == "grid":
        settings = replace(settings, trials=min(settings.trials, spaces.size(space)))
    scope: Any = {"train": settings.train, "members": settings.pack}
    if folder is None:
        base = embedded.base(
            cache=cache_folder(), device=machine.device or models.default_device(), progress=training, **scope
        )
    elif model or named:
        base = models.load(str(model or named), device=machine.device, dtype=machine.dtype, **scope)
    else:
        raise InputError("no base model; give --model PATH_OR_HUB_ID, or model = ... in task.toml")
    engine = Engine.of(
        base.model, autocast=settings.autocast, checkpointing=machine.checkpointing, compiled=machine.compiled
    )
    return Job(base, task, view, sealed, space, settings, tuple(notes), engine)


def _questions(settings: "Settings") -> int:
    from dataclasses import asdict

    from froc import digest
    from search.plan import Settings

    plain = asdict(Settings(settings.budget))
    said = {
        key: value
        for key, value in asdict(settings).items()
        if key not in ("reopen", "openings") and not (key in LATER and value == plain[key])
    }
    return int(digest.of_json(said)[:8], 16)


def cache_folder() -> Path:
    """Where the embedded model is kept; FROC_CACHE overrides the platform's folder."""
    return Path(os.environ.get("FROC_CACHE") or platformdirs.user_cache_dir("froc"))
