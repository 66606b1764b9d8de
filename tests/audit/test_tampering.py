"""The small form of benchmarks/tamper.py and growth.py: random changes of a bundle, on bundles of the present format."""

from pathlib import Path

import growth
import synthetic_runs
import tamper
from mutations import KINDS

from froc.audit import bundle, verification
from froc.audit import keys as signing


def test_no_random_change_goes_unnoticed_and_none_crashes(tmp_path: Path) -> None:
    tally = tamper.tampered(40, 5, tmp_path)
    assert tally.wrong == []
    assert set(tally.counts) <= set(KINDS)
    assert tally.total("refused") > 25


def test_a_report_about_a_synthetic_run_has_no_reservation(tmp_path: Path) -> None:
    signing.keygen(tmp_path / "key", None)
    run = synthetic_runs.make_run(tmp_path / "run", 4, 240, trials=6, attacked=1)
    made = bundle.build(run, tmp_path, tmp_path / "key", name="synthetic", now=growth.NOW)
    result = verification.verify(made, keys=[tmp_path / "key.pub"], model=run / "model", now=growth.NOW)
    assert result.passes
    assert set(result.report["certificate"]["budget"]) == {"forgetting", "utility", "attacked-0"}
