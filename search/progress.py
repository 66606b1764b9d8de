"""How a search's progress looks: bars on a terminal; in a file, a line when something begins and every half minute. Imports nothing slow."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from froc.measuring.named_risks import BASIC, COMBINED
from froc.visible import marked

if TYPE_CHECKING:
    from froc.search.plan import Plan
    from froc.search.run_folder import TrialRecord


TRAINING = "training "
"""What the steps of one trial are called by, before its method."""
SILENCE = 30.0
"""Seconds after which a reader of a file is told what goes on."""


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3.5 h.

    >>> duration(45), duration(725), duration(12_600)
    ('45 s', '12 min', '3.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class ProgressDisplay:
    """Progress of a search on a terminal; a `froc.search.job.Listener`."""

    def __init__(self, console: Console, quiet: bool) -> None:
        """console: where progress and messages are written. quiet: write none."""
        self._quiet, self._console = quiet, console
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console, transient=True, disable=quiet,
        )  # fmt: skip
        self._bars: dict[str, Any] = {}
        self._budget: Mapping[str, float] = {}
        self._shown = 0
        self._best_means: dict[str, Mapping[str, float] | None] = {}
        self._now = ("", 0, 0, time.monotonic())
        self._said, self._done = time.monotonic(), threading.Event()

    def __enter__(self) -> "ProgressDisplay":
        self._progress.start()
        if not self._quiet and not self._console.is_terminal:
            threading.Thread(target=self._break_silence, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._progress.stop()

    def _break_silence(self) -> None:
        """Until the end: say what goes on where nothing was said for `SILENCE` seconds."""
        while not self._done.wait(max(0.1, self._said + SILENCE - time.monotonic())):
            if time.monotonic() - self._said >= SILENCE:
                self._say_now()

    def _say_now(self) -> None:
        label, done, of, since = self._now
        self._said = time.monotonic()
        passed = self._said - since
        if label and 1 < of <= done:
            self._console.print(
                f"[dim]{marked(label)}: done; what follows has taken {duration(passed)} so far[/]", soft_wrap=True
            )
        elif label:
            left = f", about {duration(passed / done * (of - done))} left" if 0 < done < of else ""
            count = f" {done} of {of}" if of > 1 else ""
            self._console.print(f"[dim]{marked(label)}{count}, {duration(passed)} so far{left}[/]", soft_wrap=True)

    def planned(self, plan: "Plan") -> None:
        """Say what will be done, before the first trial."""
        self._budget = {risk: alpha for risk, alpha in plan.claim.budget.items() if risk in BASIC}
        if self._quiet:
            return
        from froc.risk.claim import MIN_REPORTED_UNITS

        units, metrics = plan.document["split"], plan.document["metrics"]
        named = [risk for risk in plan.claim.budget if risk != COMBINED]
        for risk in named:
            line = (
                f"{risk:<{max(map(len, named))}} budget {plan.claim.budget[risk]:g}, {units['search'][risk]} search and "
                f"{units['calibration'][risk]} sealed calibration {plan.claim.unit[risk]} units, {plan.claim.bound[risk]} bound"
            )
            self._console.print(
                marked(line)
                + (
                    ""
                    if metrics[risk].partition("/")[0] == "extraction_strength"
                    else f"  [dim]{marked(metrics[risk])}[/]"
                ),
                soft_wrap=True,
            )
        few = [
            f"{units['calibration'][risk]} of {risk}"
            for risk in named
            if units["calibration"][risk] < MIN_REPORTED_UNITS
        ]
        small = f"{', '.join(few)}: froc audit report refuses numbers on fewer than {MIN_REPORTED_UNITS} units (--allow-small-sample reports them)"
        for note in (*plan.notes, *([small] if few else [])):
            self._console.print(f"[dim]note: {marked(note)}[/]", soft_wrap=True)

    def base_measured(self, base: Mapping[str, Any], notes: Sequence[str]) -> None:
        """Say what the base model shows, before anything is removed from it."""
        if self._quiet:
            return
        from froc.risk.positive_control import sentences

        for line in (*sentences(base, [], None), *(f"note: {note}" for note in notes)):
            self._console.print(f"[dim]{marked(line)}[/]", soft_wrap=True)

    def trial(self, record: "TrialRecord", log: "Sequence[TrialRecord]", total: int) -> None:
        """One line per finished trial, with the best stop and mix of it, and the best so far beside the bar."""
        done = [item for item in log if item.status not in ("running", "interrupted")]
        self._advance("trials", len(done), total, self._best(done))
        if record.status == "running" or self._quiet:
            return
        self._said, best = time.monotonic(), self._best_of(record)
        means = " ".join(f"{risk} {mean:6.3f}" for risk, mean in (best or {}).items())
        within = best is not None and self._excess(best) <= 1
        verdict = (
            "[green]within budget[/]"
            if within
            else f"[dim]{marked(record.status if record.search is None else 'over')}[/]"
        )
        why = f" [dim]({marked(record.reason)})[/]" if record.reason and record.status != "pruned" else ""
        self._console.print(
            f"{marked(record.config)} {marked(record.method):<12} {marked(means):<36} {record.seconds:5.1f} s  "
            + verdict
            + why
        )

    def screening(self, done: int, total: int) -> None:
        """The likeliest configurations are measured under the further risks."""
        self._advance("further risks", done, total, "on search queries")

    def calibrating(self, done: int, total: int) -> None:
        """The sealed candidates are measured on the calibration queries."""
        self._advance("calibration", done, total, "search is closed")

    def step(self, label: str, done: int, of: int) -> None:
        """Any other long work: how much of it is done; with `of` 0, something to be said once."""
        if of:
            self._advance(label, done, of, "")
        elif not self._quiet:
            self._said = time.monotonic()
            self._console.print(f"[dim]{marked(label)}[/]", soft_wrap=True)

    def starting(self, label: str) -> None:
        """Work starts whose length is not known, such as loading a model."""
        if not self._quiet:
            self._said, self._now = time.monotonic(), (label, 0, 0, time.monotonic())
            self._console.print(f"[dim]{marked(label)} ...[/]", soft_wrap=True)

    def _begun(self, what: str) -> None:
        """No bar is drawn into a file: its reader sees what has begun, and of the steps of trials what comes of them."""
        if not (self._quiet or what.startswith(TRAINING)):
            self._said = time.monotonic()
            self._console.print(f"[dim]{marked(what)} ...[/]", soft_wrap=True)

    def _best(self, done: "Sequence[TrialRecord]") -> str:
        for record in done:
            if record.config not in self._best_means:
                self._best_means[record.config] = self._best_of(record)
        means = [best for record in done if (best := self._best_means[record.config])]
        if not means:
            return ""
        best = min(means, key=self._excess)
        return "best so far " + ", ".join(f"{risk} {value:.3f}" for risk, value in best.items())

    def _best_of(self, record: "TrialRecord") -> Mapping[str, float] | None:
        """Search means of the best stop and mix of an ended trial; None where nothing was measured."""
        measured = (configuration.search for configuration in record.configurations() if configuration.search)
        return min(measured, key=self._excess, default=None)

    def _excess(self, means: Mapping[str, float]) -> float:
        return max(means[risk] / alpha for risk, alpha in self._budget.items())

    def _advance(self, label: str, done: int, of: int, note: str) -> None:
        known, before, _, since = self._now
        # work of one name that begins again, such as the next trial's steps
        goes_on = known == label and before <= done < of
        self._now = label, done, of, since if goes_on else time.monotonic()
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(marked(label), total=of, note="")
            if not self._console.is_terminal:
                self._begun(f"{label} ({of})" if of > 1 else label)
        elif done < before and known == label:
            self._progress.reset(self._bars[label], total=of)
        self._progress.update(self._bars[label], completed=done, total=of, note=marked(note))
