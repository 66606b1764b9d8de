"""What is said of a plan's signature before the first trial."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from froc.audit import plan_signing
from froc.errors import InputError

TIME = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def signer(run: Path, key: Path, time: datetime = TIME) -> plan_signing.PlanSigner:
    """The signer of a run's plan, with a time stamp authority that gives this time."""
    token: Any = SimpleNamespace(time=time, data=b"token")
    return plan_signing.PlanSigner(run, key, stamp=lambda signature: token)


def test_a_plan_is_signed_and_stamped_once(finished: Path, keys: Path) -> None:
    (finished / "trials.jsonl").unlink()
    note = signer(finished, keys / "key").before_first_trial()
    assert note.startswith("plan signed before the first trial by ")
    assert note.endswith(f"; stamped at {TIME:%Y-%m-%dT%H:%M:%SZ}")
    assert (finished / "plan.tsr").read_bytes() == b"token"
    signature = (finished / "plan.dsse.json").read_bytes()
    again = signer(finished, keys / "key", TIME + timedelta(minutes=1)).before_first_trial()
    assert again == "the plan keeps the signature that it was given before the first trial; it keeps its time stamp"
    assert (finished / "plan.dsse.json").read_bytes() == signature


def test_a_time_stamp_from_the_future_is_a_wrong_clock(finished: Path, keys: Path) -> None:
    (finished / "trials.jsonl").unlink()
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(InputError, match="set the clock"):
        signer(finished, keys / "key", ahead).before_first_trial()
    assert not (finished / "plan.tsr").exists()
