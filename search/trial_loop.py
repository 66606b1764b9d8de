"""The stage of trials: what is asked for, where it runs, what is written down - in an order that no clock can change.

Trials are trained in packs. The pack at place k is asked for when the one at k - `parallel` has been told to the sampler
and nothing later: so what is asked hangs on the seed and on `parallel`, not on who finished first or how many workers
there are. A result is written down as it comes and told in its turn.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import polars as pl

from froc.models.base import write_weights
from froc.search.executors import TRIES, Executor, Report
from froc.search.optuna.pruning import Judge
from froc.search.optuna.study import Study
from froc.search.run_folder import FINISHED, Folder, Started, of_document, write_json, write_table
from froc.search.sealed import ranking
from froc.search.settings import Settings
from froc.search.trial.outcome import trial_seed
from froc.search.trial.work import Trained, Trials, now, saver_of

LOG = logging.getLogger("froc")
Heard = Callable[[Started, Sequence[Started], int], None]
"""Is told of a line that started or ended, the log, and how many trials there will be at most."""


@dataclass
class _Pack:
    """Trials that are trained together. lines: of those that are still to end; losses: workers lost over them."""

    numbers: list[int]
    lines: list[Started] = field(default_factory=list)
    judges: tuple[Judge, ...] = ()
    losses: int = 0


class Driver:
    """Runs a search's trials on an executor. enough: whether a configuration, the best so far, will do."""

    def __init__(
        self, folder: Folder, study: Study, executor: Executor, settings: Settings, candidates: int, heard: Heard,
        enough: Callable[[str], bool] = lambda _: False,
    ) -> None:  # fmt: skip
        self._folder, self._study, self._executor, self._settings = folder, study, executor, settings
        self._candidates, self._heard, self._enough = candidates, heard, enough
        self._log = folder.interrupted()
        self._plan = of_document(folder.plan)
        self._done = {line.trial: line for line in self._log if line.status in FINISHED}
        for line in self._done.values():
            # of a process that ended just after it had written this down
            self._forget(line)
        self._asked: deque[_Pack] = deque()
        self._sums: ranking.Sums = {}
        self._told: list[Started] = []
        self._likely, self._judged = False, ""
        self._left: deque[int] = deque()
        self._next = 0

    def run(self) -> tuple[list[Started], str]:
        """The log when no more trials are wanted, and why: `trials`, `timeout` or `likely`."""
        self._go_on()
        end = self._settings.timeout and time.monotonic() + self._settings.timeout
        while True:
            why = self._why_stop(end)
            while not why and len(self._asked) < self._settings.parallel and (numbers := self._numbers()):
                self._ask(numbers)
            if not self._asked:
                LOG.info("%d trials ended: %s", len(self._told), why or "trials")
                return self._log, why or "trials"
            if all(number in self._done for number in self._asked[0].numbers):
                self._tell(self._asked.popleft())
                continue
            for report in self._executor.wait():
                self._take(report)

    def _go_on(self) -> None:
        """Take up what an earlier call left: its trials up to the first that has not ended, less a window, were told.

        The rest is asked for once more, so that each trial's judge knows what it knew, and no more.
        """
        started = sorted({line.trial for line in self._log})
        ended = list(takewhile(self._done.__contains__, started))
        told = ended[: max(0, len(ended) - (self._settings.parallel - 1) * self._settings.pack)]
        self._told = [self._done[number] for number in told]
        self._study.resume(self._told, self._queries)
        self._left, self._next = deque(started[len(told) :]), started[-1] + 1 if started else 0
        self._judge()
        LOG.info("%d trials known, %d of them interrupted", len(self._log), len(self._log) - len(self._done))

    def _why_stop(self, end: float | None) -> str:
        if end and time.monotonic() > end and (self._done or self._asked):
            return "timeout"
        return "likely" if self._likely else ""

    def _numbers(self) -> list[int]:
        """Of the trials of the next pack: first those that an earlier call had started."""
        size, numbers = self._settings.pack, list[int]()
        first = self._left[0] if self._left else self._next
        while len(numbers) < size - first % size:
            number = self._left.popleft() if self._left else self._study.claim(self._next, self._settings.trials)
            if number is None:
                break
            numbers.append(number)
            self._next = max(self._next, number + 1)
        return numbers

    def _ask(self, numbers: list[int]) -> None:
        """Ask for a pack, write down that it starts, and hand it out."""
        pack = _Pack(numbers)
        again = {line.trial: (line.method, line.params) for line in self._log}
        judges = []
        for number in pack.numbers:
            method, params = self._study.ask(number, again.get(number))
            if number not in self._done:
                pack.lines.append(self._line(number, method, params))
                judges.append(self._study.judge(method))
        self._asked.append(pack)
        pack.judges = tuple(judges)
        if pack.lines:
            self._start(pack)

    def _line(self, number: int, method: str, params: dict[str, object]) -> Started:
        attempt = 1 + sum(line.trial == number for line in self._log)
        seed = trial_seed(self._settings.seed, number)
        return Started(number, attempt, f"c{number:04d}", method, params, seed, now(), self._plan)

    def _resumed(self, lines: list[Started]) -> list[Started]:
        """The same with the steps that an earlier attempt was saved at, where the workers see this folder."""
        steps = None if self._executor.remote else saver_of(lines, self._folder.path).steps()
        return [replace(line, resumed=step) for line, step in zip(lines, steps, strict=True)] if steps else lines

    def _start(self, pack: _Pack) -> None:
        pack.lines = self._resumed(pack.lines)
        self._log += pack.lines
        self._folder.record(self._log)
        for line in pack.lines:
            begun = "" if line.resumed is None else f", goes on from step {line.resumed}"
            LOG.info("%s starts: %s, attempt %d%s", line.config, line.method, line.attempt, begun)
            self._heard(line, self._log, self._settings.trials)
        best = self._best()
        work = Trials(
            tuple(pack.lines), pack.judges, tuple(best), self._candidates,
            None if self._executor.remote else self._folder.path, self._settings.trial_timeout,
            self._settings.steering if self._settings.relative else None,
        )  # fmt: skip
        self._executor.submit(pack.numbers[0], work)

    def _take(self, report: Report) -> None:
        pack = next(pack for pack in self._asked if pack.numbers[0] == report.key)
        if report.error is not None:
            raise report.error
        if report.lost is not None:
            self._lost(pack, report.lost)
            return
        trained: list[Trained] = report.result
        for note in dict.fromkeys(note for one in trained for note in one.notes):
            LOG.warning("%s %s", " and ".join(line.config for line in pack.lines), note)
        for one in trained:
            if one.table is not None:
                write_table(self._folder.trial_losses(one.line.config), one.table)
                self._sums |= ranking.sums(one.table)
            if self._study.by_query:
                write_json(self._folder.rung_losses(one.line.config), {"rungs": one.queries})
            for config, weights in one.weights.items():
                write_weights(weights, self._folder.weights(config))
        self._end([one.line for one in trained])
        wanted = {ranked.line.config for ranked in self._best()}
        for path in (self._folder.path / "weights").glob("*.safetensors"):
            if path.stem not in wanted:
                path.unlink()

    def _end(self, lines: Sequence[Started]) -> None:
        """Write the ends of a pack's trials down, all at once."""
        for line in lines:
            self._replace(line)
            self._done[line.trial] = line
        self._folder.record(self._log)
        self._forget(lines[0])
        for line in lines:
            LOG.info(
                "%s %s after %.1f s%s",
                line.config,
                line.status,
                line.seconds,
                f": {line.reason}" if line.reason else "",
            )
            self._heard(line, self._log, self._settings.trials)

    def _forget(self, line: Started) -> None:
        """Remove what a trial, or a pack by its first one, had left on its way."""
        shutil.rmtree(self._folder.training(line.config), ignore_errors=True)

    def _lost(self, pack: _Pack, why: str) -> None:
        """Start a pack again on another worker, or give it up where it may be what kills them."""
        pack.losses += 1
        given_up = pack.losses == TRIES
        LOG.warning("trial(s) %s lost their worker: %s", ", ".join(line.config for line in pack.lines), why)
        status, reason = ("failed", f"{TRIES} workers were lost: {why}") if given_up else ("interrupted", why)
        lines = [replace(line, status=status, reason=reason, ended=now() if given_up else None) for line in pack.lines]
        if given_up:
            self._end(lines)
            return
        for line in lines:
            self._replace(line)
        pack.lines = [self._line(line.trial, line.method, line.params) for line in lines]
        self._start(pack)

    def _replace(self, line: Started) -> None:
        place = next(i for i, one in enumerate(self._log) if (one.trial, one.attempt) == (line.trial, line.attempt))
        self._log[place] = line

    def _tell(self, pack: _Pack) -> None:
        for number in pack.numbers:
            line = self._done[number]
            self._study.tell(line, self._queries(line.config) if self._study.by_query else ())
            self._told.append(line)
        self._judge()

    def _judge(self) -> None:
        if not self._likely and self._settings.until == "certified":
            ranked = self._ranked(self._told)
            best = ranked[0].line.config if ranked else None
            if best and best != self._judged:
                self._judged, self._likely = best, self._enough(best)

    def _queries(self, config: str) -> list[list[float]]:
        return list((self._folder.read(self._folder.rung_losses(config)) or {}).get("rungs", []))

    def _ranked(self, lines: Sequence[Started]) -> list[ranking.Ranked]:
        for line in lines:
            if line.status == "complete" and line.config not in self._sums:
                self._sums |= ranking.sums(pl.read_parquet(self._folder.trial_losses(line.config)))
        return ranking.rank(lines, self._sums, self._settings.steering)

    def _best(self) -> list[ranking.Ranked]:
        """What would be sealed if the search ended now."""
        ranked = self._ranked(list(self._done.values()))
        wanted = {candidate.config for candidate in ranking.shortlist(ranked, self._candidates)}
        return [one for one in ranked if one.line.config in wanted]
