"""Every way to cheat that is known, as a change of a bundle that verifies, with the check that must refuse it.

The numbers are those of the published list of cases that this room was built against (a selection: numbers have gaps).
Each kind of cheating has a file; `forging` is how bundles are edited.

| no. | attack | cases, and where they stand |
| --- | --- | --- |
| 1 | payload changed | `payload replaced`, `a byte of the payload` |
| 2 | signature bit flipped | `signature replaced`, `a bit of the signature` |
| 3 | signatures emptied | `signatures emptied` |
| 4 | attacker's key under the trusted keyid | `another key under the trusted keyid` |
| 5 | key shipped in the bundle | `an unlisted folder` |
| 6, 80 | threshold 2 met by one key under two names | `one key under two keyids`, `one key signs twice`; trusted twice: test_verification |
| 7 | one of two required signatures removed | `one of two signatures removed` |
| 8 | signature malleated (S + L) | `a malleated signature` |
| 9, 10 | payload type rewritten; the key signed another type | `payload type rewritten`, `another payload type signed` |
| 11, 12 | another predicate type; statement v0.1 | `another predicate type`, `the plan's envelope as report`, `statement of another version` |
| 13, 14 | algorithm confusion | `an algorithm in the envelope`, `an ECDSA signature ...`, `ECDSA ...`. The algorithm is the trusted key's, said nowhere in the data; other keys: test_signing |
| 15, 16 | duplicate JSON keys | `duplicate key in the envelope`, `... in the payload`, `plan with a key twice` |
| 17-19 | NaN, 1e999, floats, large numbers | `NaN ...`, `float ...`, `large number ...`, `plan with NaN`, `plan with an endless number` |
| 20 | too large to parse | `a line of 17 MB in the log` |
| 21-23 | depth, encoding, trailing bytes | `nested deeply`, `deep payload`, `UTF-16`, `half a surrogate pair`, `trailing bytes ...` |
| 24, 25 | revoked key, key outside its window | `a key revoked since`, `a key past its end`, `a key before its beginning`, `stamped after the key was revoked`; others: test_trust |
| - | time stamps | cases with a `time stamp`; `stamped ...`; who pins no authority believes none |
| 26-28 | expired, from the future, rolled back | `expired`, `expires before it begins`, `issued in the future`, `an older report` |
| 29-33 | another model; byte, name, file changed, added, removed | `another run's model`, `a weight changed`, `model: ...` |
| 35-37 | link, pickle, code in the model | `a link among the model's files`, `model: ...` |
| - | another model, the base model's or one that loaders read otherwise, signed by the key's owner | `signed: ...`, `... sealed and signed`, `weights of one candidate not sealed` |
| - | a re-execution that says it has seen the signed model | `measured again: ... model ...` |
| 38, 39 | path traversal; weak digest | `path traversal`, `absolute path`; `md5`, `digest in capitals` |
| 40, 41, 67, 71, 77 | outsider edits a file | `a loss lowered`, `an older table`, `a trial removed`, `the budget raised`, `the page edited`, ... |
| 43-45 | unlisted, linked, oversized file | `an unlisted file`, `a link in the bundle`, `a pipe in the bundle`, `a file too large` |
| 46-50 | statistics, certified set, choice, verdict by the signer | all of `reports` |
| 51-54 | rows dropped, repeated, unplanned | `worst row dropped`, `a query dropped for all`, `row repeated`, `unplanned configuration`, `unplanned risk` |
| 55-62 | malformed losses | `loss ...` |
| 63-65 | text columns, readable ids | `text column`, `text cells`, `readable query`, `another form of unit` |
| 66, 68-70, 83 | trials removed, repeated, of another plan, too early, of unknown status | `trial ...`, `failed trial removed`, `unknown trial status` |
| 73 | calibration picked, not drawn | listed: `queries picked against the auditor's seed`; else the pool is not held, only `queries sealed that were not planned` |
| 74 | one example in both pools | cannot be said: a query's id is keyed with its pool, and ids of different pools never meet |
| 75 | repeated ids inflate n | `row repeated`, `more units planned than measured`, `order names a query twice` |
| 76 | sample too small | too small a sample certifies nothing, which is the verdict; one that may tell about single units is refused by the builder, or said: `a small sample that is not said` |
| 78, 79 | page says other than the data; script on the page | `another page`, `a script on the page` |
| - | further stages left out, forged, unplanned, of other queries | `stages: ...` |
| 82, 85 | tree digest, subjects twice | `tree digest`, `subject twice`, `subjects that differ in capitals` |
| 84 | chain head | the log has no chain: it is complete, and listed by digest in the signed report |
| 86 | malformed date | `no date`, `a date that is none`, `plan signed on no day` |
"""

import shutil
from pathlib import Path

from tests.audit.cases import (
    comparisons,
    files,
    losses,
    models,
    plans,
    reexecution,
    reports,
    signatures,
    stages,
    stamps,
    statements,
    trials,
    trust,
)
from tests.audit.cases.forging import Case
from tests.audit.conftest import Made

TOPICS = (signatures, trust, stamps, statements, files, models, plans, trials, losses, reports, comparisons, stages, reexecution)  # fmt: skip
CASES: dict[str, Case] = {name: case for topic in TOPICS for name, case in topic.CASES.items()}
assert len(CASES) == sum(len(topic.CASES) for topic in TOPICS), "a name is there twice"


def mutant(original: Made, case: Case, folder: Path) -> Made:
    """A copy of a bundle and its model in an empty folder, changed; it must differ from the original."""
    made = Made(folder / original.bundle.name, folder / "run", original.key)
    shutil.copytree(original.bundle, made.bundle)
    if original.model is not None:
        shutil.copytree(original.model, folder / "run" / "model")
    before = _state(made)
    case.attack(made)
    assert _state(made) != before, "the mutant changed nothing"
    return made


def _state(made: Made) -> dict[str, tuple[int, bytes]]:
    """What stands on disk: kinds of files, and bytes."""
    places = [path for folder in (made.bundle, made.model) if folder for path in folder.rglob("*")]
    return {str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in places}
