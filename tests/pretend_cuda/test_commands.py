"""Commands on a device that is too small, or not there, end with one sentence."""

from pathlib import Path

import pytest

from tests.pretend_cuda.runner import PretendCuda


@pytest.mark.parametrize(
    ("megabytes", "words", "trials", "sentence"),
    [
        (1.0, [], False, "not enough memory for this command; free some"),
        (6.0, [], True, "none of 2 trials finished (out-of-memory: not enough memory"),
        (None, ["--device", "cuda:7"], False, "--device cuda:7: there are 1 cuda devices, numbered from 0"),
    ],
)
@pytest.mark.usefixtures("embedded_model")
def test_a_search_says_what_does_not_fit(
    pretend_cuda: PretendCuda, tmp_path: Path, megabytes: float | None, words: list[str], trials: bool, sentence: str
) -> None:
    """The weights, a trial's moments, and a device that is not there."""
    out = tmp_path / "run"
    words = ["search", "--budget", "0.1", "--trials", "2", "--out", str(out), *words]
    done = pretend_cuda.run(words, megabytes=megabytes)
    print(done.stderr)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert (out / "trials.jsonl").exists() == trials
