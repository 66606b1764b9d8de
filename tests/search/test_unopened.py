"""What a run says whose calibration queries stayed sealed."""

import json
from pathlib import Path

from froc.data.task import FORGETTING, UTILITY
from froc.risk.certificate import Candidate
from froc.search.run_folder import Folder
from froc.search.sealed.unopened import write_unopened

BUDGET = {FORGETTING: 0.1, UTILITY: 0.2}
SUMS = {
    "near": {FORGETTING: (24_000, 100), UTILITY: (10_000, 100)},
    "far": {FORGETTING: (90_000, 100), UTILITY: (50_000, 100)},
}
NEAR, FAR = (Candidate(config, "npo", {}, 1.0) for config in SUMS)


def written(folder: Path, nearest: list[Candidate], before: float) -> tuple[object, str]:
    """The closest configuration and the reason, as they are written."""
    write_unopened(Folder(folder), nearest, SUMS, BUDGET, {FORGETTING: {"before": before}}, 7)
    document = json.loads((folder / "unopened.json").read_text())
    assert (document["format"], document["trials"]) == (1, 7)
    return document["closest"], document["reason"]


def test_the_first_of_the_nearest_is_the_closest(tmp_path: Path) -> None:
    closest, reason = written(tmp_path, [NEAR, FAR], 0.9)
    assert closest == {"config": "near", "method": "npo", "search": {FORGETTING: 0.24, UTILITY: 0.1}}
    assert (
        "closest is near (npo) with forgetting 0.240 (budget 0.1), utility 0.100 (budget 0.2); the same command"
        in reason
    )


def test_without_a_candidate_nothing_is_closest(tmp_path: Path) -> None:
    closest, reason = written(tmp_path, [], 0.9)
    assert closest is None
    assert "closest" not in reason


def test_a_fall_of_less_than_two_hundredths_is_none(tmp_path: Path) -> None:
    """The lowest forgetting risk of any trial is 0.24."""
    for before, moved in ((0.25, False), (0.27, True)):
        _, reason = written(tmp_path, [NEAR], before)
        assert ("no trial moved forgetting from the base model's" in reason) is not moved
