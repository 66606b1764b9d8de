"""Signing of a run's plan before its first trial, and time stamps for signatures."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from froc.cli import words
from froc.errors import InputError

if TYPE_CHECKING:
    from froc.audit.plan_signing import Stamper


def plan_signature(out: Path, key: str | None, tsa: str | None, tsa_root: Path | None) -> Callable[[], str] | None:
    """Signs (and stamps) the plan of the run folder `out` before its first trial; None without a key.

    InputError, before anything is trained, for a key that cannot be used or is not the one that signed the plan.
    """
    if key is None:
        if tsa is not None:
            raise InputError("--tsa stamps a signature; give the --key that signs the plan")
        return None
    from froc.audit.plan_signing import PlanSigner

    return PlanSigner(out, key, words.password(), stamper(tsa, tsa_root)).before_first_trial


def stamper(tsa: str | None, root: Path | None) -> "Stamper | None":
    """Requests a time stamp of a signature from an authority; None if no authority is named."""
    if tsa is None:
        return None
    if root is None:
        raise InputError("--tsa needs --tsa-root: the authority's root certificate, which its answer is checked with")
    from froc.audit import timestamps

    trusted = timestamps.Authority(timestamps.read(root))
    return lambda signature: timestamps.ask(tsa, signature, trusted)
