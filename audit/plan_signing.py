"""Signing and time-stamping a run's plan between its writing and the first trial."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from froc import hashing
from froc.atomic import write_bytes
from froc.audit import bundle_files, canonical_json, keys, report
from froc.audit.keys import Key
from froc.audit.timestamps import Token
from froc.audit.writing import replace_file, run_bytes, stamped
from froc.errors import InputError, VerificationError

PATIENCE = 5.0
"""Seconds that the first trial waits for the machine's clock to reach the plan's time stamp."""


Stamper = Callable[[bytes], Token]


class PlanSigner:
    """Signs a run's plan between its writing and the first trial.

    stamp: requests a time stamp from an authority.

    The key is read at once, so that an unusable one is refused before any training; so is one other than the key that
    signed this run's plan earlier.
    """

    def __init__(self, run: Path, key: Key, password: bytes | None = None, stamp: Stamper | None = None) -> None:
        self._run, self._place, self._stamp = run, run / "plan.dsse.json", stamp
        self._signer = keys.load_signer(key, password)
        if self._place.exists():
            self._refuse_other(key)

    def sign(self, now: datetime | None = None) -> Path:
        """Write plan.dsse.json. InputError where it exists."""
        if self._place.exists() or self._place.is_symlink():
            raise InputError(f"{self._place} exists and is not overwritten; a plan is signed once")
        data = plan_statement(run_bytes(self._run / "plan.json", self._run), self._signer, stamped(now))
        write_bytes(self._place, data)
        return self._place

    def before_first_trial(self) -> str:
        """Sign unless already signed; returns a remark for the user.

        Once trials have begun, an unsigned plan stays unsigned and a plan without a time stamp stays without: neither
        could show any more that the plan came first.
        """
        begun = (self._run / "trials.jsonl").exists()
        if not self._place.exists() and begun:
            return "trials began before the plan was signed, so it stays unsigned; reports will call it asserted"
        if self._place.exists():
            note = "the plan keeps the signature that it was given before the first trial"
        else:
            self.sign()
            note = f"plan signed before the first trial by {self._signer.public_key.keyid[:16]}"
        return note if self._stamp is None else f"{note}; {self._stamped(self._stamp, begun)}"

    def _stamped(self, stamp: Stamper, begun: bool) -> str:
        place = self._run / bundle_files.PLAN_TOKEN
        if place.exists():
            return "it keeps its time stamp"
        if begun:
            return "trials began before it was stamped, so it has no time stamp"
        token = stamp(keys.signatures(self._place.read_bytes())[self._signer.public_key.keyid])
        behind = (token.time.replace(microsecond=0) - datetime.now(UTC)).total_seconds()
        if behind > PATIENCE:
            raise InputError(
                f"this machine's clock is {behind:.0f} s behind the time stamp's, so that trials would seem to start before "
                "their plan; set the clock"
            )
        time.sleep(max(0.0, behind))
        replace_file(place, token.data)
        return f"stamped at {stamped(token.time)}"

    def _refuse_other(self, key: Key) -> None:
        try:
            payload, _ = keys.verify(self._place.read_bytes(), [keys.public_of(self._signer)])
            subject = canonical_json.strict_json(payload)["subject"]
        except (OSError, VerificationError) as error:
            raise InputError(
                f"{self._place} was not signed with {key}; give the key that signed it, or leave --key out"
            ) from error
        if subject[0]["digest"]["sha256"] != hashing.sha256_bytes(run_bytes(self._run / "plan.json", self._run)):
            raise InputError(f"{self._place} is not about {self._run / 'plan.json'}; choose another --out")


def plan_statement(plan: bytes, signer: keys.PrivateKey, signed: str) -> bytes:
    """plan.dsse.json: a signed statement about the bytes of plan.json, which repeats them without floats."""
    document = canonical_json.strict_json(plan, decimals=True)
    predicate = {"signed": signed, "plan": canonical_json.exact(document)}
    body = keys.statement({"plan.json": hashing.sha256_bytes(plan)}, report.PLAN_PREDICATE, predicate)
    return keys.sign(body, [signer])
