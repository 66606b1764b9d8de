"""The stage of trials: draw configurations, train them on workers, record results - in an order that no clock can change.

Trials are trained in packs. Pack k is drawn once the sampler has been given the results of all packs up to k - `parallel`, and of
no later one. So the configurations depend on the seed and on `parallel`, and not on which pack finished first or on the number of
workers. A result is recorded as soon as it comes, and given to the sampler in the order of its pack.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import polars as pl

from froc import timestamp
from froc.atomic import remove_unfinished
from froc.configuration_id import ConfigurationId
from froc.models.base import write_weights
from froc.risk.certificate import Candidate
from froc.search.executors import TRIES, Executor, Report
from froc.search.optuna.pruning import TrialPruner
from froc.search.optuna.study import Study
from froc.search.run_folder import FINISHED, Folder, TrialRecord, of_document, write_json, write_table
from froc.search.sealed import ranking
from froc.search.settings import Settings
from froc.search.trial.outcome import trial_seed
from froc.search.trial.work import TrainPack, TrialResult, saver_of

LOG = logging.getLogger("froc")
OnTrial = Callable[[TrialRecord, Sequence[TrialRecord], int], None]
"""Called with the record of a trial that started or ended, the whole log, and the largest number of trials."""


@dataclass
class _Pack:
    """Trials that are trained together. records: of those that are still to end; losses: workers lost over them."""

    numbers: list[int]
    records: list[TrialRecord] = field(default_factory=list)
    pruners: tuple[TrialPruner, ...] = ()
    losses: int = 0


class TrialLoop:
    """Runs a search's trials on an executor; `leaderboard` holds what they came to.

    candidates: how many may be sealed. enough: whether the candidates so far will do.
    """

    def __init__(
        self, folder: Folder, study: Study, executor: Executor, settings: Settings, candidates: int, on_trial: OnTrial,
        enough: Callable[[Sequence[Candidate]], bool] = lambda _: False,
    ) -> None:  # fmt: skip
        self._folder, self._study, self._executor, self._settings = folder, study, executor, settings
        self._on_trial, self._enough = on_trial, enough
        self._log = folder.interrupted()
        self._plan = of_document(folder.plan)
        self._done = {record.trial: record for record in self._log if record.status in FINISHED}
        for record in self._done.values():
            # of a process that ended just after it had written this down
            self._forget(record)
        self._in_flight: deque[_Pack] = deque()
        self.leaderboard = ranking.Leaderboard(settings.steering, candidates)
        self._reported: list[TrialRecord] = []
        self._likely, self._checked = False, list[Candidate]()
        self._left: deque[int] = deque()
        self._next = 0

    def run(self) -> tuple[list[TrialRecord], str]:
        """The log when no more trials are wanted, and why: `trials`, `timeout` or `likely`."""
        self._go_on()
        end = self._settings.timeout and time.monotonic() + self._settings.timeout
        while True:
            why = self._why_stop(end)
            if why == "timeout":
                self._withdraw()
            while not why and len(self._in_flight) < self._settings.parallel and (numbers := self._numbers()):
                self._ask(numbers)
            if not self._in_flight:
                remove_unfinished(self._folder.candidates)
                LOG.info("%d trials ended: %s", len(self._reported), why or "trials")
                return self._log, why or "trials"
            if all(number in self._done for number in self._in_flight[0].numbers):
                self._tell(self._in_flight.popleft())
                continue
            for report in self._executor.wait():
                self._take(report)

    def _go_on(self) -> None:
        """Continue an earlier call: its trials up to the first unfinished one, less the packs in flight, are given to the sampler.

        The others are drawn again, so that each trial's pruner knows exactly the trials that it knew before.
        """
        started = sorted({record.trial for record in self._log})
        ended = list(takewhile(self._done.__contains__, started))
        known = ended[: max(0, len(ended) - (self._settings.parallel - 1) * self._settings.pack)]
        self._reported = [self._done[number] for number in known]
        self._study.resume(self._reported, self._queries)
        self._left, self._next = deque(started[len(known) :]), started[-1] + 1 if started else 0
        for record in self._done.values():
            if record.status == "complete":
                self._rank(record, pl.read_parquet(self._folder.trial_losses(record.config)))
        self._check_likely()
        LOG.info("%d trials known, %d of them interrupted", len(self._log), len(self._log) - len(self._done))

    def _why_stop(self, end: float | None) -> str:
        if end and time.monotonic() > end and (self._done or self._in_flight):
            return "timeout"
        return "likely" if self._likely else ""

    def _withdraw(self) -> None:
        """Take back the packs that no worker has begun: after the time limit no trial starts, but one at least is there to be sealed."""
        keys = set(self._executor.withdraw(() if self._done else self._in_flight[0].numbers[:1]))
        left = {record.trial for pack in self._in_flight if pack.numbers[0] in keys for record in pack.records}
        if left:
            self._in_flight = deque(pack for pack in self._in_flight if pack.numbers[0] not in keys)
            self._log = [record for record in self._log if record.trial not in left or record.status != "running"]
            self._folder.write_log(self._log)
            LOG.info("trials %s were drawn and not begun", ", ".join(map(str, sorted(left))))

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
        attempted = {record.trial: (record.method, record.params) for record in self._log}
        pruners = []
        for number in pack.numbers:
            method, params = self._study.ask(number, attempted.get(number))
            if number not in self._done:
                pack.records.append(self._record(number, method, params))
                pruners.append(self._study.pruner(method))
        self._in_flight.append(pack)
        pack.pruners = tuple(pruners)
        if pack.records:
            self._start(pack)

    def _record(self, number: int, method: str, params: dict[str, object]) -> TrialRecord:
        attempt = 1 + sum(record.trial == number for record in self._log)
        seed = trial_seed(self._settings.seed, number)
        return TrialRecord(
            number, attempt, str(ConfigurationId(number)), method, params, seed, timestamp.stamp(), self._plan
        )

    def _resumed(self, records: list[TrialRecord]) -> list[TrialRecord]:
        """The same with the steps that an earlier attempt was saved at, where the workers see this folder."""
        steps = None if self._executor.remote else saver_of(records, self._folder.path).steps()
        return (
            [replace(record, resumed=step) for record, step in zip(records, steps, strict=True)] if steps else records
        )

    def _start(self, pack: _Pack) -> None:
        pack.records = self._resumed(pack.records)
        self._log += pack.records
        self._folder.write_log(self._log)
        for record in pack.records:
            begun = "" if record.resumed is None else f", goes on from step {record.resumed}"
            LOG.info("%s is drawn: %s, attempt %d%s", record.config, record.method, record.attempt, begun)
            self._on_trial(record, self._log, self._settings.trials)
        work = TrainPack(
            tuple(pack.records), pack.pruners, self.leaderboard.shortened,
            None if self._executor.remote else self._folder.path, self._settings.trial_timeout,
            self._settings.steering if self._settings.relative else None,
        )  # fmt: skip
        self._executor.submit(pack.numbers[0], work)

    def _take(self, report: Report) -> None:
        pack = next(pack for pack in self._in_flight if pack.numbers[0] == report.key)
        if report.error is not None:
            raise report.error
        if report.lost is not None:
            self._lost(pack, report.lost)
            return
        trained: list[TrialResult] = report.result
        for note in dict.fromkeys(note for result in trained for note in result.notes):
            LOG.warning("%s %s", " and ".join(record.config for record in pack.records), note)
        for result in trained:
            if result.table is not None:
                write_table(self._folder.trial_losses(result.record.config), result.table)
                self._rank(result.record, result.table)
            if self._study.by_query:
                write_json(self._folder.rung_losses(result.record.config), {"rungs": result.queries})
            for config, weights in result.weights.items():
                write_weights(weights, self._folder.weights(config))
        self._end([result.record for result in trained])
        self._remove_weights()

    def _remove_weights(self) -> None:
        """Keep those of candidates, and of trials whose end is not known here: a worker may just have written them."""
        wanted = {candidate.config for candidate in self.leaderboard.candidates}
        for path in self._folder.candidates.glob("*.safetensors"):
            if path.stem not in wanted and ConfigurationId.parse(path.stem).trial in self._done:
                path.unlink()

    def _end(self, records: Sequence[TrialRecord]) -> None:
        """Write the ends of a pack's trials down, all at once."""
        for record in records:
            self._replace(record)
            self._done[record.trial] = record
        self._folder.write_log(self._log)
        self._forget(records[0])
        for record in records:
            LOG.info(
                "%s %s after %.1f s%s",
                record.config,
                record.status,
                record.seconds,
                f": {record.reason}" if record.reason else "",
            )
            self._on_trial(record, self._log, self._settings.trials)

    def _forget(self, record: TrialRecord) -> None:
        """Remove what a trial, or a pack by its first one, had left on its way."""
        shutil.rmtree(self._folder.training(record.config), ignore_errors=True)

    def _lost(self, pack: _Pack, why: str) -> None:
        """Start a pack again on another worker, or give it up where it may be what kills them."""
        pack.losses += 1
        given_up = pack.losses == TRIES
        LOG.warning("trial(s) %s lost their worker: %s", ", ".join(record.config for record in pack.records), why)
        status, reason = ("failed", f"{TRIES} workers were lost: {why}") if given_up else ("interrupted", why)
        records = [
            replace(record, status=status, reason=reason, ended=timestamp.stamp() if given_up else None)
            for record in pack.records
        ]
        if given_up:
            self._end(records)
            return
        for record in records:
            self._replace(record)
        pack.records = [self._record(record.trial, record.method, record.params) for record in records]
        self._start(pack)

    def _replace(self, record: TrialRecord) -> None:
        place = next(
            i for i, logged in enumerate(self._log) if (logged.trial, logged.attempt) == (record.trial, record.attempt)
        )
        self._log[place] = record

    def _tell(self, pack: _Pack) -> None:
        for number in pack.numbers:
            record = self._done[number]
            self._study.tell(record, self._queries(record.config) if self._study.by_query else ())
            self._reported.append(record)
        self._check_likely()

    def _check_likely(self) -> None:
        if not self._likely and self._settings.until == "certified":
            known = {record.trial for record in self._reported}
            ranked = tuple(entry for entry in self.leaderboard.ranked if entry.record.trial in known)
            candidates = replace(self.leaderboard, ranked=ranked).candidates
            if candidates and candidates != self._checked:
                self._checked, self._likely = candidates, self._enough(candidates)

    def _queries(self, config: str) -> list[list[float]]:
        return list((self._folder.read(self._folder.rung_losses(config)) or {}).get("rungs", []))

    def _rank(self, record: TrialRecord, table: pl.DataFrame) -> None:
        self.leaderboard = self.leaderboard.with_trials([record], ranking.sums(table))
