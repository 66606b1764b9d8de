"""The `search` command and its progress."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import platformdirs
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import options, words
from cli.showing import summary
from froc.errors import InputError, NotCertifiedError

if TYPE_CHECKING:
    from search.folder import Started
    from search.plan import Plan, Settings
    from search.run import Job

LATER = (
    "population", "sample", "weights", "radius", "sequential", "objective", "weighing", "train", "pack", "sweep", "autocast",
)  # fmt: skip
"""Settings that came later: where they are not used, the embedded task's questions stay what they were."""
EXAMPLES = """[bold]Examples[/]

froc search --budget 0.1

froc search --budget forgetting=0.05 --budget utility=0.1 --task DIR --model meta-llama/Llama-3.2-1B-Instruct

froc search --budget 0.1 --methods npo,simnpo --trials 60 --space lr=1e-6:1e-4 --out runs/npo
"""


def search(
    budget: options.Budget,
    confidence: options.Confidence = 0.9,
    task: Annotated[
        Path | None, typer.Option(help="Task folder; without it the embedded task.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model: a folder with safetensors or a hub id.", show_default=False),
    ] = None,
    methods: Annotated[str, typer.Option(help="Comma-separated methods, or all (froc list methods).")] = "all",
    trials: Annotated[int, typer.Option(help="How many configurations to try.")] = 30,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; a run that was stopped goes on in it.")] = Path(
        "froc-run"
    ),
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric, or RISK=METRIC (froc list metrics).", show_default="extraction_strength"),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="Search range or list: lr=1e-5:1e-3, npo.beta=0.05:0.5, epochs=3,6,9 (repeatable).", show_default=False
        ),
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe, nsga2, gp, random, or grid (all of --space's lists).")] = "tpe",
    objective: Annotated[
        str, typer.Option(help="What the sampler minimizes: pareto (each risk) or froc (the published score).")
    ] = "pareto",
    pruner: Annotated[
        str, typer.Option(help="median, halving, hyperband, wilcoxon or none: stops hopeless trials early.")
    ] = "median",
    procedure: options.Procedure = "weighted-holm",
    bound: options.Bound = "auto",
    candidates: Annotated[
        int | None,
        typer.Option(help="How many configurations are tested on calibration queries.", show_default="up to 10"),
    ] = None,
    population: options.Population = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(help="RISK=100: units of a listed population to measure beside the search's.", show_default=False),
    ] = None,
    weight: options.Weight = None,
    radius: options.Radius = 0.0,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Measure candidates in rounds; stop once certified or hopeless.")
    ] = False,
    joint: options.Joint = False,
    search_share: Annotated[float, typer.Option(help="Part of the queries that the search may look at.")] = 0.2,
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of the split, e.g. an auditor's.", show_default="the task's")
    ] = None,
    openings: Annotated[int, typer.Option(help="Planned looks at the calibration queries: delta / K each.")] = 1,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Look once more than planned; every output says so.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random number of the run.")] = 0,
    batch: Annotated[int, typer.Option(help="Forget rows per optimiser step.")] = 32,
    train: Annotated[
        str, typer.Option(help="What trials may change: full, layers:last=2, or lora:rank=8 (adapters, then merged).")
    ] = "full",
    pack: Annotated[
        int, typer.Option(help="Configurations trained in the same passes over the frozen base (with --train lora).")
    ] = 1,
    sweep: Annotated[
        bool, typer.Option(help="Try stops on the way and mixes with the base model: candidates without training.")
    ] = True,
    autocast: Annotated[
        str | None,
        typer.Option(
            help="off, bfloat16 or float16: precision of training's matrix products.",
            show_default="bfloat16 where cuda trains float32 parameters",
        ),
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations instead of keeping them: less memory.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile the blocks; try froc bench --compile first.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ...", show_default="cuda where there is one")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="by device")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Search methods and configurations, certify them, pick one and save its model.

    Trains unlearning runs, seals a list of candidates, measures those on queries that the search never saw, and
    certifies the configurations whose risks are within budget with the stated confidence.
    """
    from search.folder import Folder
    from search.plan import Settings

    settings = Settings(
        budget=words.budget(budget), confidence=confidence, metrics=words.per_risk(metric or [], "metric", str),
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()), trials=trials, sampler=sampler,
        pruner=pruner, procedure=procedure, bound=bound, joint=joint, candidates=candidates, share=search_share,
        seed=seed, batch=batch, openings=openings, reopen=reopen,
        population=words.per_risk(population or [], "population", str), sample=words.per_risk(sample or [], "sample", int),
        weights=words.per_risk(weight or [], "weight", float), radius=radius, sequential=sequential, space=words.spaces(space or []),
        objective=objective, train=train, pack=pack, sweep=sweep, autocast=autocast,
    )  # fmt: skip
    settings.check()
    Folder(out).refuse_unwritable()
    with Screen(quiet) as screen:
        job = _job(settings, task, model, split_seed, device, dtype, checkpointing, compiled, screen)
        from search.run import run

        certificate = run(job, out, screen)
    _draw(out)
    if json_:
        words.emit(certificate)
    elif not quiet:
        summary(out, certificate)
    if certificate["chosen"] is None:
        raise NotCertifiedError(certificate["reason"])


def _job(
    settings: "Settings", folder: Path | None, model: str | None, split_seed: int | None,
    device: str | None, dtype: str | None, checkpointing: bool, compiled: bool, screen: "Screen",
) -> "Job":  # fmt: skip
    from dataclasses import replace

    from froc import models
    from froc.data import split
    from froc.engine import Engine
    from froc.tasks import embedded
    from froc.tasks import folder as folders
    from search import space as spaces
    from search.run import Job

    if dtype is not None and dtype not in models.DTYPES:
        raise InputError(f"no dtype is called {dtype!r}; there are: {', '.join(models.DTYPES)}")
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
            cache=cache_folder(), device=device or models.default_device(), progress=screen.training, **scope
        )
    elif model or named:
        base = models.load(str(model or named), device=device, dtype=dtype, **scope)
    else:
        raise InputError("no base model; give --model PATH_OR_HUB_ID, or model = ... in task.toml")
    engine = Engine.of(base.model, autocast=settings.autocast, checkpointing=checkpointing, compiled=compiled)
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


def _draw(out: Path) -> None:
    from froc import curves, figures
    from search.folder import Folder

    folder = Folder(out)
    plan, certificate = folder.read(folder.plan), folder.read(folder.certificate)
    if plan is not None and certificate is not None:
        weighing = plan["search"].get("weighing")
        tried = [vars(one) for line in folder.log() for one in line.configurations()]
        figures.draw(folder.figures, tried, certificate, weighing)
        if certificate["candidates"]:
            curves.draw_shift(folder.figures / "shift.png", certificate)


class Screen:
    """Progress on standard error; a `search.run.Listener`."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=words.messages, transient=True, disable=quiet,
        )  # fmt: skip
        self._bars: dict[str, Any] = {}
        self._budget: Mapping[str, float] = {}
        self._shown = 0

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def training(self, what: str, done: int, of: int) -> None:
        """The embedded model is being trained (first use only)."""
        self._advance(f"{what} (once)", done, of, "")

    def planned(self, plan: "Plan") -> None:
        """Say what will be done, before the first trial."""
        self._budget = {risk: alpha for risk, alpha in plan.claim.budget.items() if risk != words.COMBINED}
        if self._quiet:
            return
        units = plan.document["split"]
        for risk, alpha in self._budget.items():
            words.messages.print(
                f"{risk:<10} budget {alpha:g}, {units['search'][risk]} search and {units['calibration'][risk]} sealed "
                f"calibration {plan.claim.unit[risk]} units, {plan.claim.bound[risk]} bound"
            )
        for note in plan.notes:
            words.messages.print(f"[dim]note: {note}[/]")

    def trial(self, line: "Started", log: "Sequence[Started]", total: int) -> None:
        """One line per finished trial, with the best stop and mix of it, and the best so far beside the bar."""
        done = [item for item in log if item.status not in ("running", "interrupted")]
        self._advance("trials", len(done), total, self._best(done))
        if line.status == "running" or self._quiet:
            return
        best = min((one.search for one in line.configurations() if one.search), key=self._excess, default=None)
        means = " ".join(f"{risk} {mean:6.3f}" for risk, mean in (best or {}).items())
        within = best is not None and self._excess(best) <= 1
        verdict = "[green]within budget[/]" if within else f"[dim]{line.status if line.search is None else 'over'}[/]"
        why = f" [dim]({line.reason})[/]" if line.reason and line.status != "pruned" else ""
        words.messages.print(f"{line.config} {line.method:<12} {means:<36} {line.seconds:5.1f} s  {verdict}{why}")

    def calibrating(self, done: int, total: int) -> None:
        """The sealed candidates are measured on the calibration queries."""
        self._advance("calibration", done, total, "search is closed")

    def _best(self, done: "Sequence[Started]") -> str:
        means = [one.search for item in done for one in item.configurations() if one.search]
        if not means:
            return ""
        best = min(means, key=self._excess)
        return "best so far " + ", ".join(f"{risk} {value:.3f}" for risk, value in best.items())

    def _excess(self, means: Mapping[str, float]) -> float:
        return max(means[risk] / alpha for risk, alpha in self._budget.items())

    def _advance(self, what: str, done: int, of: int, note: str) -> None:
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=of, note="")
        self._progress.update(self._bars[what], completed=done, total=of, note=note)
