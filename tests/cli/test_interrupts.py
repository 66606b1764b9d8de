"""An interrupt that is dropped on its way still ends the command."""

import subprocess
import sys

import pytest

SCRIPT = """
import signal, time
from froc.cli import interrupts

class Dropping:
    def __del__(self):
        signal.raise_signal(signal.{name})

def dropped_by_python():
    dropping = Dropping()
    del dropping

def dropped_by_a_library():
    try:
        signal.raise_signal(signal.{name})
    except BaseException:
        pass

try:
    with interrupts.never_lost():
        {drop}()
        time.sleep(30)
    print("the interrupt was lost")
except KeyboardInterrupt:
    print("interrupted")
# it is over: nothing comes after
time.sleep(4 * interrupts.AGAIN)
"""


@pytest.mark.parametrize("drop", ["dropped_by_python", "dropped_by_a_library"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_dropped_interrupt_is_raised_again_and_only_once(name: str, drop: str) -> None:
    script = SCRIPT.format(name=name, drop=drop)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=25, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("interrupted", "", 0)
