"""`froc.search` in Python: what the command does, with values instead of words, and a result that prints and plots."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import jobs, words
from froc.certifying import Certificate
from froc.errors import InputError

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

        from search.folder import Folder

        rows = [
            {"config": one.config, "method": one.method, "status": one.status, "seconds": one.seconds, **(one.search or {})}
            for line in Folder(self.out).log() for one in line.configurations()
        ]  # fmt: skip
        return pl.DataFrame(rows, infer_schema_length=None)

    def plot(self) -> "Figure":
        """Measured risk and bound of every candidate against the budgets."""
        return self.certificate.plot()

    def __str__(self) -> str:
        return f"{self.certificate}\nrun folder: {self.out}"

    def _repr_html_(self) -> str:
        return self.certificate._repr_html_()


def search(
    budget: float | Mapping[str, float],
    *,
    out: Place = "froc-run",
    task: Place | None = None,
    model: str | None = None,
    data: Place | None = None,
    methods: Sequence[str] = (),
    trials: int = 30,
    confidence: float = 0.9,
    metrics: Mapping[str, str] | None = None,
    unit: Mapping[str, str] | None = None,
    profile: str = "basic",
    device: str | None = None,
    dtype: str | None = None,
    executor: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    **more: Any,
) -> Run:
    """Search methods and configurations, certify them on sealed queries, pick one and save its model; `froc search` in Python.

    budget: one for every risk, or by risk. out: run folder; a search that was stopped goes on in it. task: task folder, or a
    benchmark's NAME:PART with `data`; the embedded task without it. metrics: risk -> metric. unit: risk ->
    `query` or `group`, what was drawn. progress: whether it is shown.
    more: further settings, called as in `search.plan.Settings` (seed, batch, sampler, pruner, candidates, space, train, ...).
    Raises InputError for what cannot be searched; a search that certifies nothing returns, with `certificate.chosen` None.
    """
    from cli.searching import Screen
    from search.folder import Folder
    from search.plan import parallel_of
    from search.run import run
    from search.settings import Settings

    known = {field.name for field in fields(Settings)}
    for name in more:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(f"froc.search has no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    defined = dict(metrics or {})
    said = [f"{risk}={alpha}" for risk, alpha in budget.items()] if isinstance(budget, Mapping) else [str(budget)]
    place, machine = Path(out), jobs.Machine(device, dtype, executor=executor, workers=workers)
    more.setdefault("parallel", parallel_of(Folder(place)) or max(1, len(jobs.places(machine))))
    settings = Settings(
        words.budgets(said, profile, defined),
        confidence=confidence,
        metrics=defined,
        methods=tuple(methods),
        trials=trials,
        **more,
    )
    settings.check()
    Folder(place).refuse_unwritable()
    with Screen(quiet=not progress) as screen:
        where = None if task is None else Path(task)
        drawn = [f"{risk}={kind}" for risk, kind in (unit or {}).items()]
        files = None if data is None else Path(data)
        job = jobs.job(settings, where, model, None, machine, screen.training, files, unit=drawn)
        return Run(place, Certificate(run(job, place, screen)))
