"""`python -m tests.pretend_cuda PROGRAM WORDS`: `python -m PROGRAM WORDS` on two pretend devices; switches: see `device`.

python -m tests.pretend_cuda pytest tests/pretend_cuda/on_device/check_device.py -n0
PRETEND_CUDA_DEVICES=1 PRETEND_CUDA_MB=200 python -m tests.pretend_cuda froc search --budget 0.1
"""

import os
import sys

from tests.pretend_cuda.build import UnavailableError, built
from tests.pretend_cuda.runner import environment

if __name__ == "__main__":
    try:
        own = environment(built())
    except UnavailableError as error:
        sys.exit(str(error))
    os.execve(sys.executable, [sys.executable, "-m", *sys.argv[1:]], {"PRETEND_CUDA_DEVICES": "2", **os.environ, **own})
