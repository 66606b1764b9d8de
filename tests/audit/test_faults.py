"""Whatever a key's owner signs, verifying it ends in an answer: no mutation of a document is a bug of the verifier."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from froc.audit import bundle_files, cross_checks
from froc.errors import InputError, VerificationError
from tests.audit.cases.plans import _replan
from tests.audit.conftest import Made

EVIL: list[Any] = [
    None, True, 0, -1, 1, 10**400, -(10**400), 2**53, 5e-324, 1e308, 1e-300, 0.999999999999, "", "x", "\x1b[31m", "‮", "9999-13-45T99:99:99Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", [], {}, [[]], {"": None}, [None], ["forgetting"], "a" * 5000, "1e-400", "0.0.0", "npo(",
    "c0001", "base", "forgetting", {"forgetting": 10**30},
]  # fmt: skip
"""Values that a field is replaced by, whatever its type."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document has a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from _places(part, (*path, key))


def _put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def _mutate(made: Made, name: str, share: float, value: Any) -> None:
    """Replace a value of a document of the bundle, and sign all that hangs on it."""

    def change(document: dict[str, Any]) -> None:
        places = list(_places(document))
        _put(document, places[min(len(places) - 1, int(share * len(places)))], value)

    if name == "report":
        with suppress(ValueError, TemplateError):  # what has no page is signed without a new one
            made.resign(change)
            return
        made.restate(lambda body: change(body["predicate"]))
    elif name == "plan":
        _replan(change)(made)
    elif name == "trials":
        lines = (made.bundle / "trials.jsonl").read_text().splitlines()
        number = int(share * 7919) % len(lines)
        document = json.loads(lines[number])
        change(document)
        lines[number] = json.dumps(document, sort_keys=True, separators=(",", ":"))
        (made.bundle / "trials.jsonl").write_text("\n".join(lines) + "\n")
        made.resign()
    else:
        document = json.loads((made.bundle / name).read_text())
        change(document)
        (made.bundle / name).write_text(json.dumps(document))
        made.resign()


@pytest.fixture(scope="module")
def tried(originals: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that mutates a fresh copy of an original and verifies it: the refusal, None where it is accepted."""
    place = tmp_path_factory.mktemp("faults")

    def attempt(of: str, name: str, share: float, value: Any) -> VerificationError | None:
        good = originals[of]
        bundle = place / good.bundle.name
        shutil.rmtree(bundle, ignore_errors=True)
        made = Made(Path(shutil.copytree(good.bundle, bundle)), good.run, good.key)
        _mutate(made, name, share, value)
        try:
            made.verify()
        except VerificationError as error:
            return error
        return None

    return attempt


PARTS = st.sampled_from(
    [("good", "report"), ("good", "plan"), ("good", "trials"), ("good", "seal.json"), ("early", "seal.json"), ("compared", "comparison.json")]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(part=PARTS, share=st.floats(0, 1, exclude_max=True), value=st.sampled_from(EVIL))
def test_every_mutation_has_an_answer(tried: Any, part: tuple[str, str], share: float, value: Any) -> None:
    error = tried(*part, share, value)
    if error is not None:
        assert "\n" not in str(error)
        if error.check.startswith("failed-"):
            assert error.check.removeprefix("failed-") in cross_checks.STEPS


PLACES = {
    "files": "froc.audit.bundle_files.read_bundle", "timestamps": "froc.audit.timestamps.check", "signature": "froc.audit.statements.read",
    "statement": "froc.audit.trust.Trust.refuse", "dates": "froc.audit.verification._dates", "evidence": "froc.audit.bundle_files.listing",
    "subject": "froc.audit.verification._subject", "model": "froc.audit.model_folder.read", "weights": "froc.audit.bound_weights.check", "plan": "froc.audit.cross_checks._plan", "seal": "froc.audit.cross_checks._seal",
    "trials": "froc.audit.bundle_files.read_trials", "losses": "froc.audit.bundle_files.read_losses", "comparison": "froc.audit.comparisons.read",
    "statistics": "froc.audit.report.derive", "page": "froc.audit.rendering.html", "reexecution": "froc.audit.verification._again",
}  # fmt: skip
"""Step -> a function that it calls."""


@pytest.mark.parametrize(
    "fault", [OverflowError("cannot convert"), KeyError("x"), RecursionError(), MemoryError(), ZeroDivisionError()]
)
@pytest.mark.parametrize("step", cross_checks.STEPS)
def test_an_unforeseen_fault_is_a_refusal_that_names_its_step(
    originals: dict[str, Made], monkeypatch: pytest.MonkeyPatch, step: str, fault: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise fault

    made = originals["compared" if step == "comparison" else "stamped" if step == "timestamps" else "good"]
    monkeypatch.setattr(PLACES[step], broken)
    with pytest.raises(
        VerificationError, match=rf"^failed-{step}: step {cross_checks.STEPS.index(step) + 1} could not be done"
    ):
        made.verify()


def test_faults_of_this_machine_are_no_refusal(originals: dict[str, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise InputError("time stamps need rfc3161-client")

    monkeypatch.setattr("froc.audit.timestamps.check", missing)
    with pytest.raises(InputError, match="rfc3161"):
        originals["stamped"].verify()


def test_many_names_of_a_file_take_no_memory(originals: dict[str, Made], tmp_path: Path) -> None:
    made = Made(
        Path(shutil.copytree(originals["good"].bundle, tmp_path / "bundle")),
        originals["good"].run,
        originals["good"].key,
    )
    first = made.bundle / f"report-{0:064x}.tsr"
    first.write_bytes(b"0" * bundle_files.TOKEN_BYTES)
    for number in range(1, 3000):
        os.link(first, made.bundle / f"report-{number:064x}.tsr")
    tracemalloc.start()
    try:
        with pytest.raises(VerificationError, match="bundle-too-many-files"):
            bundle_files.read_bundle(made.bundle)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < bundle_files.TOKEN_BYTES, "not one token was read, let alone 3,000"
