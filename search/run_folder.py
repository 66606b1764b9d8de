"""The files of a run; the only place that knows their names. Every write appears whole or not at all.

`trials.jsonl` is the run's memory: one line per *started* trial. Optuna's `study.db` is made from it and can be lost.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import polars as pl

from froc import bounded_file, hashing
from froc.atomic import lock, replacing, write_text
from froc.configuration_id import ConfigurationId
from froc.errors import InputError

FINISHED = ("complete", "pruned", "diverged", "out-of-memory", "timed-out", "failed")


@dataclass(frozen=True)
class TrialRecord:
    """One line of `trials.jsonl`.

    status: running | complete | pruned | diverged | out-of-memory | timed-out | failed | interrupted.
    search: risk -> mean search loss in [0, 1].
    rungs: [step, {risk: mean}] of the cheap measurements during training.
    averages: inputs of FROC's score, see `froc.risk.froc_score.Means`; null for an unfinished trial.
    variants: further configurations of the same training: `config`, the step at which it stopped (`stop`), its weight
        in a mix with the base model (`mix`), and its own `search` and `averages`.
    resources: see `froc.search.trial.work`.
    resumed: step from which this attempt continued an earlier one, after which `seconds` and `resources` count; null if
        it began anew.
    """

    trial: int
    attempt: int
    config: str
    method: str
    params: dict[str, Any]
    seed: int
    started: str
    plan: str
    status: str = "running"
    reason: str | None = None
    ended: str | None = None
    steps: int = 0
    seconds: float = 0.0
    search: dict[str, float] | None = None
    rungs: list[list[Any]] = field(default_factory=list)
    averages: dict[str, dict[str, float]] | None = None
    variants: list[dict[str, Any]] = field(default_factory=list)
    resources: dict[str, float] = field(default_factory=dict)
    resumed: int | None = None

    def configurations(self) -> list["TrialRecord"]:
        """This record and one like it for each variant, whose stop and mix stand among its hyperparameters."""
        return [self] + [
            replace(
                self, config=variant["config"], params=self.params | {"stop": variant["stop"], "mix": variant["mix"]},
                search=variant["search"], averages=variant["averages"], variants=[],
            )
            for variant in self.variants
        ]  # fmt: skip


class Folder:
    """A run folder, held by one process at a time while it is open for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "plan.json"
        self.options = path / "options.json"
        self.trials = path / "trials.jsonl"
        self.study = path / "study.db"
        self.run_log = path / "run.log"
        self.seal = path / "seal.json"
        self.certificate = path / "certificate.json"
        self.model = path / "model"
        self.diagnostics = path / "diagnostics.json"
        self.drift = path / "drift.json"
        self.sustainability = path / "sustainability.json"
        self.figures = path / "figures"
        self.candidates = path / "weights"
        self.search_losses = path / "losses" / "search.parquet"
        self.screened = path / "losses" / "screened.parquet"
        self.base_losses = path / "losses" / "base.parquet"
        self.unopened = path / "unopened.json"
        self.calibration_losses = path / "losses" / "calibration.parquet"
        self._lock: IO[str] | None = None
        self._lines: dict[int, tuple[TrialRecord, str]] = {}

    def weights(self, config: str) -> Path:
        """Where a candidate's parameters wait for calibration."""
        return self.candidates / f"{config}.safetensors"

    def training(self, config: str) -> Path:
        """Where the trials that are trained with this one, the first of them, leave their state on the way."""
        return self.path / "training" / config

    def trial_losses(self, config: str) -> Path:
        """Search losses of one finished trial and its variants; config: of any of them."""
        return self.path / "losses" / "trials" / f"{ConfigurationId.parse(config).of_trial}.parquet"

    def rung_losses(self, config: str) -> Path:
        """Losses of the queries that the rungs of one trial measured, for pruners that compare query by query."""
        return self.path / "losses" / "rungs" / f"{config}.json"

    def refuse_unwritable(self) -> None:
        """InputError where the folder could not be made or written, found out without making it."""
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise InputError(
                f"cannot write the run folder {self.path} ({place} is not a writable folder); choose another --out"
            )

    def hold(self) -> None:
        """Create the folder and lock it. Raises InputError where another process holds it or it cannot be written."""
        place = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_links()
            held = lock(place, wait=False)
        except BlockingIOError as error:
            holder = place.read_text().strip() or "another process"
            raise InputError(f"{self.path} is held by {holder}; wait for it or choose another --out") from error
        except OSError as error:
            raise InputError(
                f"cannot write the run folder {self.path} ({error.strerror}); choose another --out"
            ) from error
        held.truncate(0)
        # a folder on a network disk may be held from another machine
        held.write(f"process {os.getpid()} on {platform.node()}")
        held.flush()
        self._lock = held

    def _refuse_links(self) -> None:
        """InputError for a link in the folder: what is written below it would land elsewhere."""
        link = next((path for path in sorted(self.path.iterdir()) if path.is_symlink()), None)
        if link is not None:
            raise InputError(
                f"{link} is a link, so that files of the run would be written elsewhere; choose another --out"
            )

    def release(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read(self, path: Path) -> dict[str, Any] | None:
        """A JSON document of this run, or None where it is not there yet."""
        try:
            document = json.loads(bounded_file.read(path, bounded_file.RUN_BYTES).decode("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError) as error:
            raise InputError(f"{path} is damaged; remove it and run the same command again") from error
        if not isinstance(document, dict):
            raise InputError(f"{path} is damaged; remove it and run the same command again")
        return document

    def require_plan(self) -> dict[str, Any]:
        """The plan; InputError where the folder has none."""
        plan = self.read(self.plan)
        if plan is None:
            raise InputError(
                f"{self.path} is no run folder (no plan.json); give the folder that froc search --out wrote"
            )
        return plan

    def model_is_whole(self, certificate: Mapping[str, Any]) -> bool:
        """Whether the chosen model is there, where one was chosen."""
        return certificate.get("chosen") is None or (self.model / "config.json").is_file()

    def log(self) -> list[TrialRecord]:
        """All started trials; a torn last line cannot be, since the file is always replaced whole."""
        if not self.trials.is_file():
            return []
        try:
            lines = bounded_file.read(self.trials, bounded_file.RUN_BYTES).decode("utf-8").splitlines()
            return [TrialRecord(**json.loads(line)) for line in lines]
        except (ValueError, TypeError, OSError) as error:
            raise InputError(f"{self.trials} is damaged; start a new run folder (--out)") from error

    def write_log(self, log: list[TrialRecord]) -> None:
        """Write the log of started trials."""
        # a record never changes, so its line is made once; it is kept beside the line, so that its id stays its own
        known = {id(record): self._lines.get(id(record)) or (record, _line(record)) for record in log}
        self._lines = known
        write_text(self.trials, "".join(known[id(record)][1] for record in log))

    def interrupted(self) -> list[TrialRecord]:
        """The log with trials that a killed process left running marked as interrupted."""
        reason = "the process ended before the trial did"
        log = [replace(s, status="interrupted", reason=reason) if s.status == "running" else s for s in self.log()]
        if log:
            self.write_log(log)
        return log


def _line(record: TrialRecord) -> str:
    return json.dumps(asdict(record), sort_keys=True) + "\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file by an indented JSON document with sorted keys."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Replace a file by a Parquet table."""
    with replacing(path) as part:
        table.write_parquet(part)


def of_document(path: Path) -> str:
    """Digest of a document's bytes."""
    return hashing.sha256_file(path)
