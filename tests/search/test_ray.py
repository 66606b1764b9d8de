"""Ray on a cluster of two nodes on this machine, one of them killed in the middle of the run."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from froc.errors import InputError
from froc.models.base import Base
from froc.search.pipeline import run
from froc.search.run_folder import Folder, TrialRecord
from froc.search.sealed.ranking import Leaderboard
from froc.search.trial.work import TrainPack
from tests.search.small_search import Watch, job, recipe
from tests.search.test_executors import SETTINGS

NAMES = ("certificate.json", "losses/search.parquet", "losses/calibration.parquet")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A head and a second node, one worker's room each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    # its import takes seconds, in each process that collects this file
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield made, made.add_node(num_cpus=1)
        ray.shutdown()
        made.shutdown()


def test_a_machine_that_vanishes_changes_nothing(base: Base, cluster: tuple[Any, Any], tmp_path: Path) -> None:
    """The same bytes as in this process; no file but the driver's; a worker that cannot start says why."""
    from froc.search.executors.ray import Ray

    machines, second = cluster
    made = job(base, **SETTINGS)
    run(made, tmp_path / "plain", Watch())

    class Vanishes(Watch):
        gone = False

        def trial(self, line: TrialRecord, log: Sequence[TrialRecord], total: int) -> None:
            super().trial(line, log, total)
            if line.trial == 3 and line.status == "running" and not self.gone:
                self.gone = True
                machines.remove_node(second, allow_graceful=False)

    watch = Vanishes()
    run(replace(made, workers=lambda _: Ray(recipe(made), machines.address, 2)), tmp_path / "run", watch)
    assert watch.gone
    log, text = Folder(tmp_path / "run").log(), (tmp_path / "run" / "run.log").read_text()
    assert "a Ray worker is lost" in text
    # a machine too busy to answer may be given up as lost until a trial counts as failed: then this says so
    ended = [line for line in log if line.status != "interrupted"]
    assert {line.status for line in ended} == {line.status for line in Folder(tmp_path / "plain").log()}, text
    assert sorted(line.trial for line in ended) == list(range(6))
    for name in NAMES:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()

    broken = Ray(replace(recipe(made), digest="0" * 64), None, 1)
    broken.submit(0, TrainPack((), (), Leaderboard({}, 1), None))
    with pytest.raises(InputError, match="another than the driver's"):
        broken.wait()
    broken.close()
