"""Several GPUs per trial, from the command line."""

import json
from pathlib import Path

from tests.commands import ROOT
from tests.pretend_cuda.device import MEMORY
from tests.pretend_cuda.runner import PretendCuda

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
