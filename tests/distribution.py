"""What pytest's worker processes take, and in which order: a worker that has nothing left waits for the others."""

from functools import cache

from tests.commands import ROOT

SHARES = ('scope="module"', "@cache", "@functools.cache")
"""By one of these a file's tests share what is made once in a process: they stay together."""
DEVICE = "tests/pretend_cuda/"
"""Each of its tests is a process that computes for long."""
WAITING = ("tests/search/test_killed.py", "tests/search/test_ray.py")
"""They wait for processes that they start more than they compute: begun first, they take nobody's processor at the end."""
LONG = ("tests/search/", "tests/cli/", "tests/audit/", "tests/test_benchmarks.py")


@cache
def divisible(file: str) -> bool:
    """Whether a file's tests may run in several processes. file: its path in the repository."""
    path = ROOT / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return bool(text) and not any(word in text for word in SHARES)


def order(file: str) -> int:
    """Sorts tests: what waits first, what takes long before what does not, what cannot be divided before what can."""
    if file in WAITING:
        return -1
    whole, long = not divisible(file), file.startswith(LONG)
    if whole and long:
        return 0
    return 1 if whole or file.startswith(DEVICE) else 3 - long


def unit(test: str) -> str:
    """What a worker takes at once: a file whose tests belong together, or a single test. test: its node id."""
    file = test.partition("::")[0]
    return test if divisible(file) else file
