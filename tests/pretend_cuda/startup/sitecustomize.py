"""On PYTHONPATH with PRETEND_CUDA set, every Python process has the pretend device as soon as it imports torch."""

import os

if os.environ.get("PRETEND_CUDA"):
    from tests.pretend_cuda import device

    device.when_torch_is_imported()
