"""`python -m tests.pretend_cuda.child PROGRAM WORDS`: a module in a process that was forked with the pretend device."""

import runpy
import sys

from tests.pretend_cuda import device

if __name__ == "__main__":
    device.from_environment()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
