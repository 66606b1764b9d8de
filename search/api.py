"""`froc.search.run`, `froc.load` and `froc.compare`: the commands in Python, with results that print and plot."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc import extras
from froc.certification.result import Certificate
from froc.comparison.result import Comparison
from froc.errors import InputError
from froc.measuring import named_risks
from froc.search import prior_run
from froc.search.continual.predecessor import PredecessorOptions
from froc.search.machine import Machine
from froc.search.progress import ProgressDisplay
from froc.search.search_options import SearchOptions, search_job, search_settings

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from froc.search.comparison.terms import Terms

Place = str | PathLike[str]
OPTIONS = {"search_share": "share", "weight": "weights"}
"""Options of `froc search` -> names of their settings, where these differ."""


@dataclass(frozen=True)
class Run:
    """A finished search.

    out: the run folder.
    certificate: the result for the sealed candidates.
    """

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

    def to_polars(self) -> "pl.DataFrame":
        """The trials, see `trials`; of what was certified, see `certificate.to_polars()`."""
        return self.trials

    def plot(self) -> "Figure":
        """Measured risk and bound of every candidate against the budgets."""
        return self.certificate.plot()

    def __repr__(self) -> str:
        return f"Run(out={str(self.out)!r}, {self.certificate!r})"

    def __str__(self) -> str:
        return f"{self.certificate}\nrun folder: {self.out}"

    def _repr_html_(self) -> str:
        return self.certificate._repr_html_()


def run(
    budget: float | Mapping[str, float] | None = None,
    *,
    out: Place | None = None,
    like: Place | None = None,
    like_task: Sequence[Place] = (),
    task: Place | None = None,
    model: str | None = None,
    data: Place | None = None,
    methods: Sequence[str] = ("standard",),
    profile: str = "basic",
    metric: Mapping[str, str] | None = None,
    unit: Mapping[str, str] | None = None,
    split_seed: int | None = None,
    audit_seed: int | None = None,
    after: Place | None = None,
    earlier: Sequence[Place] = (),
    no_earlier: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    checkpointing: bool = False,
    compile: bool = False,  # noqa: A002  # as the option is called
    executor: str = "auto",
    workers: int | None = None,
    worker_gpus: float | None = None,
    attention: str | None = None,
    deterministic: bool = False,
    gpus_per_trial: int = 1,
    parallel: int | None = None,
    rebuild_embedded: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Search methods and configurations, certify them on sealed queries, pick one and save its model: `froc search` in Python.

    budget: largest accepted risk in (0, 1), one for every risk or by risk; needed without `like`.
    like: an earlier run, whose options are the defaults and whose best configurations by its search queries are tried first.
    like_task: task folders that it searched, where they are others than `task`.
    out: run folder, by default `froc-run` (with `after`, that run's name with the next number). A stopped search
        continues in its folder.
    task: task folder, or a benchmark's NAME:PART with its files in `data`; the embedded task by default.
    model: base model, a folder or hub id; the task's by default.
    methods: methods, families, `standard` or `all`.
    metric: risk -> measurement (`froc.measuring.measurement`).
    unit: risk -> sampling unit, `query`, `group` or `queries-by-group`.
    after, earlier, no_earlier: continue another run, see `froc search --help`.
    progress: whether progress is shown.
    settings: further options, or fields of `froc.search.settings.Settings` (search_share, trials, confidence, seed,
        batch, sampler, pruner, candidates, space, train, ...).

    The same values give the same queries and the same certificate as the command. InputError for impossible inputs. A
    search that certifies nothing returns with `certificate.chosen` None.
    """
    extras.require("search")
    from rich.console import Console

    from froc.search.pipeline import run as run_job
    from froc.search.settings import Settings

    settings = {OPTIONS.get(name, name): value for name, value in settings.items()}
    known = {field.name for field in fields(Settings)}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"froc.search.run has no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    defined = dict(metric or {})
    common, named = (None, budget) if isinstance(budget, Mapping) else (budget, dict[str, float]())
    predecessor = PredecessorOptions(_path(after), tuple(Path(folder) for folder in earlier), no_earlier)
    predecessor.check()
    prior = None if like is None else prior_run.read(Path(like), predecessor.out(_path(out)))
    places = prior_run.places(
        prior, task=_path(task), model=model, data=_path(data), unit=dict(unit or {}), split_seed=split_seed
    )
    chosen = SearchOptions(
        _path(out), **places, audit_seed=audit_seed, predecessor=predecessor,
        machine=Machine(device, dtype, checkpointing, compile, executor, workers, worker_gpus, False, attention, deterministic, gpus_per_trial),
        parallel=parallel, rebuild_embedded=rebuild_embedded, prior=prior, prior_tasks=tuple(map(Path, like_task)),
    )  # fmt: skip
    values: dict[str, Any] = {"metrics": defined, "methods": tuple(methods), **settings}
    if budget is not None:
        values["budget"] = named_risks.budgets_of_profile(common, named, profile, defined, predecessor.risks)
    if prior is not None:
        given = {"budget": budget is not None, "metrics": bool(defined), "methods": tuple(methods) != ("standard",)}
        values = prior.values(values, {*settings, *(name for name, is_given in given.items() if is_given)})
    elif budget is None:
        raise InputError("froc.search.run needs a budget such as 0.1, or like=RUN for that of an earlier run")
    with ProgressDisplay(Console(stderr=True, highlight=False), quiet=not progress) as display:
        checked = search_settings(chosen, values.pop("budget"), display.starting, **values)
        job = search_job(chosen, checked, display.step)
        return Run(chosen.run_folder, Certificate(run_job(job, chosen.run_folder, display)))


def load(run_folder: Place) -> Run:
    """A finished run: its certificate, trials and model. InputError where the folder holds no certificate."""
    from froc.search.run_folder import Folder

    folder = Folder(Path(run_folder))
    document = folder.read(folder.certificate)
    if document is None:
        raise InputError(f"{run_folder} holds no certificate.json; give a run folder whose search has finished")
    return Run(folder.path, Certificate(document))


def compare(
    runs: Place | Sequence[Place],
    *,
    retain: Sequence[float] = (0.95, 0.9),
    methods: Sequence[str] = (),
    tries: int = 3,
    confidence: float = 0.9,
    task: Place | None = None,
    data: Place | None = None,
    model: str | None = None,
    out: Place | None = None,
    openings: int = 1,
    reopen: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare methods at equal utility: mix each with the base model until all retain the same, and measure what is left.

    runs: run folders of the same task and base model.
    retain: levels of retained performance, each in (0, 1].
    methods: those to compare; by default all that the runs finished.
    tries: configurations per method that are trained again.
    out: folder of the comparison; by default RUN-compare of the first run.
    openings, reopen: planned openings of the calibration queries; whether a further one is accepted.

    InputError for runs that cannot be compared.
    """
    from rich.console import Console

    from froc.search.comparison.terms import Terms

    folders = [Path(runs)] if isinstance(runs, (str, PathLike)) else [Path(run_folder) for run_folder in runs]
    terms = Terms(tuple(retain), confidence, tries, tuple(methods), openings, reopen)
    with ProgressDisplay(Console(stderr=True, highlight=False), quiet=not progress) as display:
        return compare_runs(
            folders, terms, display, out=_path(out), task=_path(task), data=_path(data), model=model, device=device, dtype=dtype
        )  # fmt: skip


def compare_runs(
    runs: Sequence[Path], terms: "Terms", display: ProgressDisplay, *, out: Path | None, task: Path | None, data: Path | None,
    model: str | None, device: str | None, dtype: str | None,
) -> Comparison:  # fmt: skip
    """The comparison behind `froc compare` and `froc.compare`, with its figures and tables written."""
    from froc.search.run_folder import Folder

    terms.check()
    if not runs:
        raise InputError("nothing to compare; give run folders that froc search --out wrote")
    for path in runs:
        Folder(path).require_plan()
    # torch is imported from here on: what can be wrong without it was refused
    from froc.search.comparison.run import run as run_comparison
    from froc.search.comparison.runs import compared_runs

    place = out or runs[0].with_name(f"{runs[0].resolve().name}-compare")
    machine = Machine(device, dtype, executor="inline")
    compared = compared_runs(runs, terms, machine, display.step, task=task, data=data, model=model)
    return Comparison.written(place, run_comparison(compared, terms, place, display.step))


def _path(place: Place | None) -> Path | None:
    return None if place is None else Path(place)
