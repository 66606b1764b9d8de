"""Learning rates that fit the model, found before the first trial by a few steps at each of several rates.

A range that suits a model of seven billion parameters does nothing to a small one. Where neither user nor task gives a
range, one method of each family starts training at rates four times apart, from the base model each time, until search
losses move and until the model breaks. The effect of a whole trial at a lower rate is inferred from the sum of its
schedule, since an AdamW step is as long as its rate. Only training rows and search queries are read.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from froc.data.task import FORGETTING, UTILITY
from froc.hyperparameters import Range
from froc.measuring.query_losses import Probe, evaluate, observe_probe
from froc.plugins import find
from froc.search.executors import Executor
from froc.search.optuna.space import Spaces
from froc.search.optuna.trainable_space import inside
from froc.search.progress import TRAINING, duration
from froc.search.trial.outcome import TrialSpec, mean, trial_seed
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Work
from froc.training.base_statistics import PLACEHOLDER_CONTEXT
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.schedule import schedule

if TYPE_CHECKING:
    from froc.search.job import Job

RATES = tuple(4.0**k * 1e-6 for k in range(10))
"""From 1e-6 to 0.26."""
FIRST_RATE = 4
"""Index of the rate tried first; then lower ones if it moves losses, higher ones if not."""
TRIALS = 2
"""Number of trials' worth of steps that all families may use together."""
PLANNED_RATES = 7
"""Number of rates per family that the plan assumes; each takes at least MIN_STEPS steps."""
MIN_STEPS = 2
QUERIES = 64
"""Number of search queries per risk that are measured."""
MOVED, BROKEN = 0.1, 0.5
"""Share of what the base can lose at which forgetting counts as moved, and utility as broken."""
WHAT = "finding learning rates"


@dataclass(frozen=True)
class FindLearningRates(Work):
    """The learning rates of one family, found with one of its methods. families: number of families that share the steps.
    params: hyperparameters that are not at their defaults."""

    activity: ClassVar[str] = "finding learning rates"

    method: str
    seed: int
    families: int
    params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, runner: TrialRunner) -> dict[str, Any]:
        """The measurements, and the ends of the range for this method: see `_Finder.document`."""
        return _Finder(self, runner).document()


class _Finder:
    def __init__(self, request: FindLearningRates, runner: TrialRunner) -> None:
        self._request, self._runner = request, runner
        self._seen: dict[int, tuple[float, float]] = {}
        runner.base.restore()
        self._base = self._losses()
        utility = next((p for p in runner.probes if p.risk == UTILITY), None)
        room = None if utility is None or utility.base is None else utility.base[:QUERIES]
        self._room = 1.0 if room is None else float(room.clip(0.0, 1.0).mean())
        whole = runner.prepared(self._ask(RATES[0]), {}).steps
        self.steps = min(whole, max(MIN_STEPS, TRIALS * whole // (PLANNED_RATES * request.families)))
        # a whole trial's summed schedule relative to the short run's
        self._share = sum(schedule(k, whole) for k in range(self.steps)) / sum(schedule(k, whole) for k in range(whole))

    def document(self) -> dict[str, Any]:
        """method, steps of a short run, share (of a trial's summed schedule), base and tried rates with mean search
        losses; low and high where a rate moves forgetting from the base.
        """
        place = FIRST_RATE
        while place and self._moved(place):
            place -= 1
        while place < len(RATES) - 1 and not self._moved(place) and not self._broken(place):
            place += 1
        ends: dict[str, Any] = {}
        if self._moved(place) and place:
            still = place - 1
            while place < len(RATES) - 1 and not self._broken(place):
                place += 1
            ends = {"low": _short(RATES[still] * self._share), "high": _short(2 * RATES[place] * self._share)}
        self._runner.base.restore()
        tried = {
            f"{RATES[k]:.3g}": {FORGETTING: round(seen[0], 4), UTILITY: round(seen[1], 4)}
            for k, seen in sorted(self._seen.items())
        }
        base = {FORGETTING: round(self._base[0], 4), UTILITY: round(self._base[1], 4)}
        return {
            "method": self._request.method, "steps": self.steps, "share": round(self._share, 6), "base": base, "tried": tried, **ends,
        }  # fmt: skip

    def _ask(self, rate: float) -> TrialSpec:
        return TrialSpec(self._request.method, {**self._request.params, "lr": rate}, trial_seed(self._request.seed, 0))

    def _at(self, place: int) -> tuple[float, float]:
        """(forgetting, utility) mean losses after a few steps from the base."""
        if place not in self._seen:
            run = self._runner.prepared(self._ask(RATES[place]), {self.steps: lambda: True})
            activity = f"{TRAINING}{self._request.method} at {RATES[place]:.2g}"
            times = [time.monotonic()]

            def after() -> None:
                times.append(time.monotonic())
                self._runner.progress(activity, run.done, self.steps)

            train_pack(self._runner.base, [run], self._runner.engine, after_step=after)
            if not self._seen and len(times) > 1:
                # the first step computes what is kept for all trials
                self._foretell(run.steps, times[-1] - times[-2])
            self._seen[place] = (0.0, 1.0) if run.error else self._losses()
        return self._seen[place]

    def _foretell(self, steps: int, seconds: float) -> None:
        """Say what a trial of so many steps will take, if all take as long as this one."""
        self._runner.progress(
            f"a trial of {self._request.method}: {steps} steps of about {seconds:.2g} s, {duration(steps * seconds)}, and up to half of that for "
            "measuring", 0, 0,
        )  # fmt: skip

    def _losses(self) -> tuple[float, float]:
        self._runner.base.trainable.activate([0])
        losses = {probe.risk: self._loss(probe) for probe in self._runner.probes}
        return losses.get(FORGETTING, 0.0), losses.get(UTILITY, 0.0)

    def _loss(self, probe: Probe) -> float:
        places = range(min(QUERIES, len(probe.rows)))
        return mean(evaluate(probe, observe_probe(self._runner.base, probe, places), places).losses)

    def _moved(self, place: int) -> bool:
        return self._base[0] > 0 and self._at(place)[0] <= (1 - MOVED) * self._base[0]

    def _broken(self, place: int) -> bool:
        return self._at(place)[1] >= max(BROKEN * self._room, 1e-3)


def open_methods(job: "Job") -> dict[str, str]:
    """family -> method that its rates are found with, for families without a range from user or task."""
    specified = (*job.task.space, *job.settings.space)
    chosen: dict[str, str] = {}
    for name, fields in job.space.items() if job.external is None else ():
        free = isinstance(fields.get("lr"), Range) and not {"lr", f"{name}.lr"} & set(specified)
        method = find(Method, name)
        if not free or any(phase.edit for phase in method().phases(PLACEHOLDER_CONTEXT)):
            continue
        kept = chosen.get(method.family)
        # a method without a retain term breaks before it shows anything
        if kept is None or ("retain" in method.roles() and "retain" not in find(Method, kept).roles()):
            chosen[method.family] = name
    return chosen


def measured(job: "Job", executor: Executor, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """family -> the measurements for it."""
    families = open_methods(job)
    if not families:
        return {}
    works = [
        FindLearningRates(method, job.settings.seed, len(families), inside(method, job.space[method]))
        for method in families.values()
    ]
    progress(WHAT, 0, len(works))
    results = executor.each(works, lambda done: progress(WHAT, done, len(works)))
    return dict(zip(families, results, strict=True))


def fitted(job: "Job", rates: Mapping[str, Any]) -> "Job":
    """The job with the found learning rates, scaled by each method's default range relative to the measured method's."""
    families = open_methods(job)
    space: dict[str, dict[str, Any]] = {name: dict(fields) for name, fields in job.space.items()}
    notes = []
    for family, measurement in rates.items():
        if families.get(family) != measurement["method"]:
            continue
        if "low" not in measurement:
            notes.append(_unmoved(family, measurement))
            continue
        own = _rate(job.space, measurement["method"])
        for name, fields in space.items():
            specified = {"lr", f"{name}.lr"} & {*job.task.space, *job.settings.space}
            if find(Method, name).family == family and isinstance(fields.get("lr"), Range) and not specified:
                scale = _rate(job.space, name).low / own.low
                fields["lr"] = replace(
                    fields["lr"], low=_short(measurement["low"] * scale), high=_short(measurement["high"] * scale)
                )
    return replace(job, space=space, rates=dict(rates), notes=(*job.notes, *notes))


def _rate(space: Spaces, method: str) -> Range:
    rate = space[method]["lr"]
    assert isinstance(rate, Range)
    return rate


def _unmoved(family: str, measurement: Mapping[str, Any]) -> str:
    """The note for the user where no rate moves anything."""
    most = max(map(float, measurement["tried"]))
    return (
        f"no learning rate up to {most:g} moved forgetting from the base's {measurement['base'][FORGETTING]:g} without breaking the model "
        f"within {measurement['steps']} steps of {measurement['method']} ({family}): give --space lr=LOW:HIGH or epochs=LOW:HIGH, or look at "
        "whether the queries ask for what the forget rows teach"
    )


def _short(rate: float) -> float:
    """Two significant digits."""
    return float(f"{rate:.2g}")
