"""Several drivers on one study: no trial twice, all learn from all. On SQLite, and on PostgreSQL where it is installed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.errors import InputError
from froc.models.base import Base
from froc.search.pipeline import run
from froc.search.run_folder import Folder, TrialRecord
from tests.commands import ROOT
from tests.search.shared_driver import study, work
from tests.search.small_search import Watch, job


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("database")
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/shared.db"
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or os.geteuid() != 0:
        pytest.skip("no PostgreSQL server is installed here, or nobody else to start it as (it refuses root)")
    tools = programs[-1].parent
    # the server's user must reach its folder
    place = Path("/var/tmp") / f"froc-test-{os.getpid()}"
    place.mkdir()
    shutil.chown(place, "postgres", "postgres")
    quiet: dict[str, Any] = {
        "user": "postgres",
        "cwd": place,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    data = place / "data"
    try:
        subprocess.run([tools / "initdb", "-D", data, "-A", "trust"], check=True, **quiet)
        options = f"-c listen_addresses='' -c unix_socket_directories={place} -c fsync=off"
        subprocess.run([tools / "pg_ctl", "-D", data, "-w", "-o", options, "start"], check=True, **quiet)
        yield f"postgresql://postgres@/postgres?host={place}"
        subprocess.run([tools / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **quiet)
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def second_driver() -> Iterator[subprocess.Popen[str]]:
    """A driver in another process, started once for all databases: it is told of one, and then to begin."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.search.shared_driver"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as driver:
        yield driver
    assert driver.returncode == 0


def test_two_drivers_never_do_the_same_trial(url: str, second_driver: subprocess.Popen[str]) -> None:
    """One in another process, one in this; they begin together, however long the other took to start."""
    assert second_driver.stdin is not None
    assert second_driver.stdout is not None
    made, done = study(url, "one-plan"), list[TrialRecord]()
    second_driver.stdin.write(f"{url}\n")
    assert second_driver.stdout.readline() == "ready\n"
    second_driver.stdin.write("\n")
    work(made, done, 30, 0.1)
    others = json.loads(second_driver.stdout.readline())
    own = [line.trial for line in done]
    assert sorted(own + others) == list(range(30))
    assert own
    assert others


def test_drivers_learn_from_each_other(url: str) -> None:
    """One driver's good trials move the other's: it has never been told of a trial itself."""
    first, second = study(url, "learns"), study(url, "learns")
    work(first, [], 24)
    proposed = []
    for _ in range(16):
        number = second.claim(0, 100)
        assert number is not None
        proposed.append(second.ask(number))
    second.close()
    near = [params["lr"] for method, params in proposed if method == "npo"]
    assert len(near) >= 6
    assert min(near) < 0.1


def test_drivers_under_another_plan_never_meet(url: str) -> None:
    work(study(url, "a" * 16), [], 3)
    shared = study(url, "b" * 16)
    assert shared.claim(0, 3) == 0
    shared.close()


def test_two_runs_share_their_trials_and_each_goes_on(url: str, base: Base, tmp_path: Path) -> None:
    """Two run folders, one study of 6 trials; the first is stopped and goes on after the second has begun."""
    made = job(base, trials=6, epochs=(1, 2), storage=url, openings=2, questions=int("sqlite" in url))
    with pytest.raises(Exception, match="stopped"):
        run(made, tmp_path / "one", Watch(stop_at=3))
    run(made, tmp_path / "two", Watch())
    certificate = run(made, tmp_path / "one", Watch())
    logs = [[line for line in Folder(tmp_path / name).log() if line.status != "interrupted"] for name in ("one", "two")]
    assert sorted(line.trial for log in logs for line in log) == list(range(6))
    assert len(logs[0]) == 3
    assert certificate["opening"]["number"] == 2
    text = b"".join(path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert url.encode() not in text


def test_a_storage_that_is_not_there_is_said_without_its_address(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    made = job(base, storage="postgresql://me:secret@127.0.0.1:1/none")
    with pytest.raises(InputError, match="storage cannot be reached") as caught:
        run(made, tmp_path / "run", Watch())
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(made.settings)
    with pytest.raises(InputError, match="no grid"):
        replace(made.settings, sampler="grid").check()
