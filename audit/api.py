"""`froc.report` and `froc.verify`: `froc audit report` and `froc audit verify` in Python. Torch-free."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import polars as pl

from froc import hashing
from froc.audit import PASSWORD, reexecution, verification
from froc.audit import bundle as bundles
from froc.audit.verification import Result

Place = str | PathLike[str]


@dataclass(frozen=True)
class Report:
    """A signed report.

    bundle: its folder, NAME.froc-audit.
    """

    bundle: Path

    @property
    def page(self) -> Path:
        """Path of the report as a page for a browser."""
        return self.bundle / "report.html"

    def to_polars(self) -> pl.DataFrame:
        """A row per file of the bundle: name, bytes, sha256."""
        files = {path.name: path.read_bytes() for path in sorted(self.bundle.iterdir())}
        rows = [(name, len(data), hashing.sha256_bytes(data)) for name, data in files.items()]
        return pl.DataFrame(rows, schema=["name", "bytes", "sha256"], orient="row")


def report(
    run: Place,
    *,
    key: Place,
    out: Place = ".",
    name: str | None = None,
    config: str | None = None,
    role: str = "engineer",
    sequence: int = 1,
    plan_key: Place | Sequence[Place] = (),
    comparison: Place | None = None,
    allow_small_sample: bool = False,
    password: bytes | None = None,
) -> Report:
    """Build and sign the audit bundle of a finished run: `froc audit report` in Python.

    run: the run folder.
    key: private key that signs, a file or an address such as hsm:... or awskms:...
    out: folder that the bundle is put in.
    name: of the bundle; by default the task's name and the plan's fingerprint.
    config: configuration to report on; by default the chosen one.
    role: engineer, approver or auditor.
    sequence: number of this report in its series.
    plan_key: public keys of others who signed the plan.
    comparison: folder of `froc compare`, signed with it.
    allow_small_sample: report although fewer than 50 units were measured; the report says so.
    password: of an encrypted key; FROC_KEY_PASSWORD by default.

    Raises InputError for an unfinished run, an existing bundle, or inconsistent evidence.
    """
    bundle = bundles.build(
        Path(run), Path(out), key if isinstance(key, str) else Path(key), password=password or _password(), name=name, config=config,
        role=role, sequence=sequence, comparison=None if comparison is None else Path(comparison), trusted=_paths(plan_key),
        small=allow_small_sample,
    )  # fmt: skip
    return Report(bundle)


def verify(
    bundle: Place,
    *,
    key: Place | Sequence[Place] = (),
    trust: Place | None = None,
    model: Place | None = None,
    threshold: int = 1,
    min_sequence: int = 1,
    audit_seed: int | None = None,
    share: float = reexecution.SHARE,
) -> Result:
    """Check a bundle: signatures, every file, every number computed again, the model. `froc audit verify` in Python.

    bundle: its folder, NAME.froc-audit.
    key: trusted public keys, obtained from their owners and not from the bundle.
    trust: a trust file, instead of keys.
    model: folder to compare with the report, or hub:ID@REVISION.
    threshold: number of keys that must have signed.
    min_sequence, audit_seed, share: see `froc audit verify --help`.

    Returns the result whatever the verdict (`passes`, `verdict`, `reservations`). Raises VerificationError at the first
    check that fails, InputError for unusable arguments.
    """
    return verification.verify(
        Path(bundle), keys=_paths(key), trust=None if trust is None else Path(trust), model=None if model is None else Path(model),
        threshold=threshold, min_sequence=min_sequence, audit_seed=audit_seed, share=share,
    )  # fmt: skip


def _paths(places: Place | Sequence[Place]) -> list[Path]:
    return [Path(places)] if isinstance(places, (str, PathLike)) else [Path(place) for place in places]


def _password() -> bytes | None:
    secret = os.environ.get(PASSWORD)
    return secret.encode() if secret else None
