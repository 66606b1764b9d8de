"""benchmarks/gpu.py works where it was never run: all its stages, at toy sizes, on the pretend device."""

import json
from pathlib import Path

from tests.commands import ROOT
from tests.pretend_cuda.runner import PretendCuda


def test_every_stage_of_the_gpu_script_passes_on_the_pretend_device(pretend_cuda: PretendCuda, tmp_path: Path) -> None:
    words = ["--quick", "--out", str(tmp_path)]
    done = pretend_cuda.run(words, "gpu", cwd=ROOT / "benchmarks", limit=540)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [json.loads(line) for line in done.stdout.splitlines()] == lines
    stages = {line["stage"]: line for line in lines}
    end = stages.pop("end")
    assert (end["device"], end["failed"], end["missing"]) == ("pretend H200", [], [])
    assert len(stages) == 11
    assert not any("error" in line for line in stages.values())
    assert stages["waits"]["per_step"] > 0
    assert stages["out of memory"]["ends"][0][0] == "out-of-memory"
    assert (tmp_path / "profile.txt").stat().st_size > 0


def test_a_stage_that_takes_too_long_or_fails_does_not_end_the_others(
    pretend_cuda: PretendCuda, tmp_path: Path
) -> None:
    words = ["--quick", "--out", str(tmp_path), "--seconds", "6.5", "--stages", "bits,adapters,waits"]
    done = pretend_cuda.run(words, "gpu", cwd=ROOT / "benchmarks", env={"PRETEND_CUDA_REFUSE": "40"}, limit=540)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["passed"] is False
    assert "OutOfMemoryError" in lines[0]["error"]
    end = lines[-1]
    assert end["stage"] == "end"
    assert {line["stage"] for line in lines[:-1]} | set(end["missing"]) == {"bits", "adapters", "waits"}
