"""`froc.search.run` and `froc.load`: what the command does, with values instead of words, and a result that prints and plots."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc import extras
from froc.certification.result import Certificate
from froc.errors import InputError
from froc.measuring import named_risks
from froc.search import build
from froc.search.continuation import ContinuationOptions
from froc.search.progress import ProgressDisplay
from froc.search.search_options import SearchOptions, search_job, search_settings

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

Place = str | PathLike[str]


@dataclass(frozen=True)
class Run:
    """A finished search. out: the run folder. certificate: what holds of the sealed candidates."""

    out: Path
    certificate: Certificate

    @property
    def model(self) -> Path | None:
        """The folder of the chosen model (safetensors), None where nothing was certified."""
        return self.out / "model" if self.certificate.chosen else None

    @property
    def trials(self) -> "pl.DataFrame":
        """config, method, status, seconds, and per risk the mean search loss: every trial, stop and mix."""
        import polars as pl

        from froc.search.run_folder import Folder

        rows = [
            {"config": configuration.config, "method": configuration.method, "status": configuration.status, "seconds": configuration.seconds, **(configuration.search or {})}
            for record in Folder(self.out).log() for configuration in record.configurations()
        ]  # fmt: skip
        return pl.DataFrame(rows, infer_schema_length=None)

    def plot(self) -> "Figure":
        """Measured risk and bound of every candidate against the budgets."""
        return self.certificate.plot()

    def __str__(self) -> str:
        return f"{self.certificate}\nrun folder: {self.out}"

    def _repr_html_(self) -> str:
        return self.certificate._repr_html_()


def run(
    budget: float | Mapping[str, float],
    *,
    out: Place | None = None,
    task: Place | None = None,
    model: str | None = None,
    data: Place | None = None,
    methods: Sequence[str] = ("standard",),
    profile: str = "basic",
    metrics: Mapping[str, str] | None = None,
    unit: Mapping[str, str] | None = None,
    split_seed: int | None = None,
    audit_seed: int | None = None,
    after: Place | None = None,
    earlier: Sequence[Place] = (),
    no_earlier: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    checkpointing: bool = False,
    compiled: bool = False,
    executor: str = "auto",
    workers: int | None = None,
    worker_gpus: float = 0.0,
    parallel: int | None = None,
    rebuild_embedded: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Search methods and configurations, certify them on sealed queries, pick one and save its model: `froc search` in Python.

    budget: one for every risk, or by risk. out: run folder (`froc-run`; after a run, that run's name with the next number); a search
    that was stopped goes on in it. task: task folder, or a benchmark's NAME:PART with `data`; the embedded task without it.
    metrics: risk -> measurement. unit: risk -> `query`, `group` or `queries-by-group`, what was drawn. after, earlier,
    no_earlier: see `froc search --help`. progress: whether it is shown. settings: further fields of
    `froc.search.settings.Settings` (trials, confidence, seed, batch, sampler, pruner, candidates, space, train, ...).
    The same values draw the same questions and give the same certificate as the command's.
    Raises InputError for what cannot be searched; a search that certifies nothing returns, with `certificate.chosen` None.
    """
    extras.require("search")
    from rich.console import Console

    from froc.search.pipeline import run as run_job
    from froc.search.settings import Settings

    known = {field.name for field in fields(Settings)}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"froc.search.run has no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    defined = dict(metrics or {})
    every, named = (None, budget) if isinstance(budget, Mapping) else (budget, {})
    chain = ContinuationOptions(_path(after), tuple(Path(folder) for folder in earlier), no_earlier)
    chain.check()
    chosen = SearchOptions(
        _path(out), _path(task), model, _path(data), dict(unit or {}), split_seed, audit_seed, chain,
        build.Machine(device, dtype, checkpointing, compiled, executor, workers, worker_gpus), parallel, rebuild_embedded,
    )  # fmt: skip
    budgets = named_risks.budgets_of_profile(every, named, profile, defined, chain.risks)
    checked = search_settings(chosen, budgets, metrics=defined, methods=tuple(methods), **settings)
    with ProgressDisplay(Console(stderr=True, highlight=False), quiet=not progress) as display:
        job = search_job(chosen, checked, display.training)
        return Run(chosen.run_folder, Certificate(run_job(job, chosen.run_folder, display)))


def load(run_folder: Place) -> Run:
    """A finished run: its certificate, trials and model. InputError where the folder holds no certificate."""
    from froc.search.run_folder import Folder

    folder = Folder(Path(run_folder))
    document = folder.read(folder.certificate)
    if document is None:
        raise InputError(f"{run_folder} holds no certificate.json; give a run folder whose search has finished")
    return Run(folder.path, Certificate(document))


def _path(place: Place | None) -> Path | None:
    return None if place is None else Path(place)
