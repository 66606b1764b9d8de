"""How fast this machine is, so that goals of time are ratios: the seconds that fixed work of the same kind takes beside a measurement."""

import csv
import io
import time

import numpy as np


def unit() -> float:
    """CPU seconds of fixed work on one thread, the least of three: a table of 100,000 lines read with Python's csv module and its
    losses as whole numbers, and ten running sums of a million float64."""
    table = "".join(f"c{i % 100:04d},forgetting,{i:016x},{i % 1001}\n" for i in range(100_000))
    values = np.random.default_rng(0).random(1_000_000)
    return min(_seconds(table, values) for _ in range(3))


def _seconds(table: str, values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    begin = time.process_time()
    total = sum(int(row[3]) for row in csv.reader(io.StringIO(table)))
    for _ in range(10):
        np.cumsum(values)
    assert total > 0
    return time.process_time() - begin
