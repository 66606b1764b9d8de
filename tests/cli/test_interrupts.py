"""An interrupt that Python would drop still ends the command."""

import subprocess
import sys

SCRIPT = """
import signal, time
from froc.cli import interrupts

class Dropping:
    def __del__(self):
        signal.raise_signal(signal.{name})

interrupts.install()
try:
    dropping = Dropping()
    del dropping
    time.sleep(30)
    print("the interrupt was lost")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_within_a_destructor_is_raised_again() -> None:
    for name in ("SIGTERM", "SIGINT"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(name=name)], capture_output=True, text=True, timeout=25, check=False
        )
        assert (done.stdout.strip(), done.stderr) == ("interrupted", ""), name
