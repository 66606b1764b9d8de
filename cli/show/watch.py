"""`froc show --watch`: follows a run that is in progress in another terminal."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from froc.cli import words
from froc.errors import InputError
from froc.visible import visible

if TYPE_CHECKING:
    from froc.search.run_folder import Folder, TrialRecord

SHOWN = 20
"""Number of latest trials shown."""


def follow(run: Path, interval: float) -> None:
    """Show a run's trials until it has a certificate; waits for a run that has not begun. Ctrl-C only ends the watching.

    On a terminal the picture is redrawn; elsewhere a line is printed for each trial that ends.
    """
    from froc.search.run_folder import Folder

    if not run.absolute().parent.is_dir():
        raise InputError(f"{run} cannot become a run folder: {run.absolute().parent} is not there")
    folder = Folder(run)
    if not words.results.is_terminal:
        _print(folder, interval)
        return
    with Live(console=words.results, auto_refresh=False, transient=True) as live:
        while folder.read(folder.certificate) is None:
            live.update(_picture(folder), refresh=True)
            time.sleep(interval)


def _print(folder: "Folder", interval: float) -> None:
    printed: set[tuple[int, int]] = set()
    while True:
        # read first: the certificate is written after the last trial
        over = folder.read(folder.certificate) is not None
        for record in folder.log():
            if record.status != "running" and (record.trial, record.attempt) not in printed:
                printed.add((record.trial, record.attempt))
                ended = (record.config, record.method, record.status)
                words.results.print(" ".join(map(words.name, ended)), soft_wrap=True)
        if over:
            return
        time.sleep(interval)


def _picture(folder: "Folder") -> RenderableType:
    from froc.cli.show.summary import limits, trials

    plan = folder.read(folder.plan)
    if plan is None:
        return Text(visible(f"waiting for a search in {folder.path}"), style="dim")
    log = folder.log()
    latest = sorted(log, key=lambda record: record.started)[-SHOWN:]
    return Group(
        trials(latest, limits(plan["budget"])), Text(visible(_state(folder, log, int(plan["search"]["trials"]))))
    )


def _state(folder: "Folder", log: "Sequence[TrialRecord]", planned: int) -> str:
    from froc.search.run_folder import FINISHED

    ended = sum(record.status in FINISHED for record in log)
    running = sum(record.status == "running" for record in log)
    stage = "sealed, measuring the candidates" if folder.seal.is_file() else f"{running} running"
    return f"{ended} of {planned} trials ended, {stage}"
