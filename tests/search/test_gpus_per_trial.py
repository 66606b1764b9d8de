"""Several GPUs per trial, from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from froc.models.base import Base
from froc.search.pipeline import run
from froc.search.trial.runner import TrialRunner
from froc.search.trial.work import Agreement, CheckPrompt
from tests.commands import ROOT
from tests.pretend_cuda.device import MEMORY
from tests.pretend_cuda.runner import PretendCuda
from tests.search.small_search import Watch, job

TASK = ["--methods", "npo", "--steps", "1", "--device", "cuda", "--train", "lora:rank=2"]


def test_bench_divides_the_model_and_says_what_each_device_needs(
    pretend_cuda: PretendCuda, embedded_model: Path
) -> None:
    done = pretend_cuda.run(["bench", *TASK, "--gpus-per-trial", "2", "--json"], devices=2, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    shares = facts["memory_of_devices"]
    assert set(shares) == {"cuda:0", "cuda:1"}
    assert sum(share["weights"] for share in shares.values()) == facts["memory"]["options"][0]["weights"]
    assert facts["memory"]["device_bytes"] == 2 * MEMORY


def test_more_gpus_than_there_are_end_the_command_before_anything_is_loaded(pretend_cuda: PretendCuda) -> None:
    words = ["search", "--budget", "0.1", "--gpus-per-trial", "4"]
    done = pretend_cuda.run(words, devices=2)
    assert done.returncode == 2
    assert "--gpus-per-trial 4: torch" in " ".join(done.stderr.split())
    assert "sees 2 cuda devices" in " ".join(done.stderr.split())


def test_the_plan_says_how_whoever_measures_computes(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers may have other devices than the driver, which writes the plan."""
    plain = CheckPrompt.__call__

    def elsewhere(self: CheckPrompt, runner: TrialRunner) -> Agreement:
        agreement = plain(self, runner)
        assert agreement.environment == base.environment
        return replace(agreement, environment={"devices": "2", "attention": "flash_attention_2"})

    monkeypatch.setattr(CheckPrompt, "__call__", elsewhere)
    run(job(base, trials=1, candidates=1, epochs=(1, 1), sweep=False, methods=("none",)), tmp_path / "run", Watch())
    environment = json.loads((tmp_path / "run" / "plan.json").read_text())["environment"]
    assert (environment["devices"], environment["attention"]) == ("2", "flash_attention_2")
    assert environment["measured-in"] == "float32"
