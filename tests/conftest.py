"""A small embedded task, trained once per session: eight people, two of whom are forgotten. And commands.

Its model lies in tests/data (tests/small_model.py says how to make it again): trained on another processor it would be another model, and so would be whatever methods make of
it. What a test finds must not hang on the rounding of one processor either. To see whether it does:

    FROC_TEST_SEED=3        another small model, trained here (0: the same recipe as the one in tests/data)
    FROC_TEST_THREADS=2     sums in another order
    FROC_TEST_NO_ONEDNN=1   no oneDNN, as on a processor that gains nothing from it
    MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=default   an older processor's arithmetic
"""

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import ROOT, Commands, read_migrations_once, unsynced
from tests.distribution import order, unit

if TYPE_CHECKING:
    from froc.data.splits import Sealed, SearchView
    from froc.data.task import Task
    from froc.models.base import Base
    from froc.search.trial.runner import TrialRunner
    from tests.pretend_cuda.runner import PretendCuda

# tests import benchmarks and examples as these import one another: by their bare names
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "examples")]

SHARED = Path(__file__).resolve().parents[2] / "shared"


MODEL_FOLDERS = {"attacks", "cli", "measuring", "methods", "metrics", "models", "pretend_cuda", "search", "training"}
"""Folders whose tests load or train a model, or start commands that do."""
QUICK = {"test_api.py", "test_layout.py"}
"""What of them, and of SLOW, belongs to the quick part: one tiny search."""
SLOW = {
    "test_checks.py",
    "test_independent.py",
    "test_privacy.py",
    "test_browser.py",
    "test_skips.py",
    "test_tofu.py",
    "test_examples.py",
}
"""Slow files elsewhere."""


BENCHMARKS = ROOT / "tests" / "test_benchmarks.py"
ON_DEVICE = ROOT / "tests" / "pretend_cuda" / "on_device"
"""Tests that tests/pretend_cuda/test_on_device.py runs in processes of their own."""
EXPECTED_SKIPS = (
    r"the (logs|TOFU files) are not at hand$", r"openssl is not installed", r"SoftHSM2, .* is not installed$",
    r"no PostgreSQL server is installed", r"python-pkcs11 is not installed", r"torch was built without oneDNN$",
    r"(torchao|bitsandbytes) is not installed$", r"no browser", r"not a git checkout$", r"no pretend CUDA: ",
)  # fmt: skip
"""What a machine may lack: reasons, as patterns. Whatever else is skipped fails the run."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in terminalreporter.stats.get("passed", []):
        if report.nodeid.startswith("tests/test_benchmarks.py") and "[" in report.nodeid:
            print(f"the quick form of a benchmark has run: {report.nodeid.partition('[')[2].rstrip(']')}")
    for reason in _unexpected_skips(config):
        print(f"skipped for a reason that tests/conftest.py does not expect: {reason}")


def _unexpected_skips(config: pytest.Config) -> list[str]:
    """Reasons of skips, each once; none in a worker process, whose reports the main process sees."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skips = reporter.stats.get("skipped", []) if reporter else []
    reasons = {
        str(report.longrepr[2]).removeprefix("Skipped: ") for report in skips if isinstance(report.longrepr, tuple)
    }
    return sorted(reason for reason in reasons if not any(re.match(known, reason) for known in EXPECTED_SKIPS))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Five processes overlap the waiting of slow tests on two cores; the quick part computes, and each process collects it all."""
    return 2 if config.option.markexpr == "not slow" else 5


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By file, as the command line says, but only where a file's tests belong together."""
    from xdist.scheduler import LoadFileScheduling

    if config.option.dist != "loadfile":
        return None
    made = LoadFileScheduling(config, log)
    made._split_scope = unit
    return made


def _slow(path: Path) -> bool:
    return (path.parent.name in MODEL_FOLDERS or path.name in SLOW) and path.name not in QUICK


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The quick part (`-m "not slow"`) does not even import what slow tests import; of benchmarks, whole runs take one."""
    marked = config.option.markexpr
    if collection_path == ON_DEVICE:
        return None if os.environ.get("PRETEND_CUDA") else True
    if collection_path == BENCHMARKS:
        return None if marked in ("", "benchmark") else True
    return True if marked == "not slow" and collection_path.suffix == ".py" and _slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests are marked. What is over soon comes last, so that the workers end together."""
    for item in items:
        if _slow(item.path):
            item.add_marker("slow")
    items.sort(key=lambda item: order(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pytest's worker processes share."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "together"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session", autouse=True)
def _places(tmp_path_factory: pytest.TempPathFactory, together: Path) -> Iterator[None]:
    """Nothing a test does may count openings or fill caches of the person who runs it."""
    unsynced()
    read_migrations_once()
    with pytest.MonkeyPatch.context() as patch:
        # tests of files without models run without torch
        if "torch" in sys.modules:
            _arithmetic(patch)
        patch.setenv("FROC_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        # processes that tests start run beside each other: more threads than cores wait for each other, fifty times slower
        patch.setenv("OMP_NUM_THREADS", "1")
        # the embedded model is trained once, also for the commands that tests start
        patch.setenv("FROC_CACHE", os.environ.get("FROC_TEST_CACHE") or str(together / "cache"))
        yield


def _arithmetic(patch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants
    import torch

    from froc.models import onednn

    # read when it was imported: without it, the hub is asked for a minute
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    torch.set_num_threads(int(os.environ.get("FROC_TEST_THREADS", "1")))
    if os.environ.get("FROC_TEST_NO_ONEDNN"):
        torch.backends.mkldnn.set_flags(_enabled=False)
        patch.setattr(onednn, "helps", lambda: False)


@pytest.fixture(autouse=True)
def _own_openings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test meets the openings that another one counted; module-wide runs count theirs in the session's folder."""
    monkeypatch.setenv("FROC_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def base(together: Path) -> "Base":
    from froc.training import embedded
    from tests.small_model import SMALL, TRAINED

    with (together / "small.lock").open("w") as held:
        # who comes second loads what the first has trained
        fcntl.flock(held, fcntl.LOCK_EX)
        kept = embedded.kept(SMALL, together)
        # written over, a file that another worker's model is mapped from ends that worker by SIGBUS
        if "FROC_TEST_SEED" not in os.environ and not kept.exists():
            shutil.copytree(TRAINED, kept)
        return embedded.base(SMALL, cache=together)


@pytest.fixture(autouse=True)
def _base_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """The model is shared by the whole session: no test finds in it what another one left."""
    yield
    if "base" in request.fixturenames:
        request.getfixturevalue("base").restore()


@pytest.fixture(scope="session")
def embedded_model(together: Path) -> Path:
    """The embedded task's own model, where commands look for it: a slow machine trains it for minutes, which no test's limit counts."""
    from froc.training import embedded

    with (together / "embedded.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        return embedded.made(cache=Path(os.environ["FROC_CACHE"]))


@pytest.fixture(scope="session")
def commands(_places: None, together: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """`python -m froc`, forked from a process that has imported what is slow."""
    made = Commands(tmp_path_factory.mktemp("commands"), shared=together)
    yield made
    made.close()


@pytest.fixture(scope="session")
def pretend_cuda(_places: None, together: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PretendCuda]":
    """Processes that see CUDA devices where there is none; tests/pretend_cuda/README.md."""
    from tests.pretend_cuda.build import UnavailableError
    from tests.pretend_cuda.runner import PretendCuda

    try:
        made = PretendCuda(tmp_path_factory.mktemp("pretend-cuda"), together)
    except UnavailableError as error:
        pytest.skip(f"no pretend CUDA: {error}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def task() -> "Task":
    from froc.data.tasks import embedded_text
    from tests.small_model import SMALL

    return embedded_text.task(SMALL)


@pytest.fixture(scope="session")
def parts(task: "Task") -> "tuple[SearchView, Sealed]":
    from froc.data.splits import split

    return split(task, 0.2)


@pytest.fixture(scope="session")
def bench(base: "Base", parts: "tuple[SearchView, Sealed]") -> "TrialRunner":
    from froc.measuring.measurement import plain
    from froc.measuring.metric import Metric
    from froc.plugins import make
    from froc.search.trial.runner import TrialRunner

    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "extraction_strength")))
    return TrialRunner(base, parts[0], measures, batch=16, seed=0)


@pytest.fixture(scope="module")
def folder(base: "Base", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small model on disk."""
    from froc.models.base import save

    place = tmp_path_factory.mktemp("model")
    base.restore()
    save(base, place)
    return place


@pytest.fixture
def lora(folder: Path) -> "Base":
    """The small model with three LoRA adapters."""
    from froc.models.base import load

    return load(str(folder), device="cpu", train="lora:rank=4", n_adapters=3)
