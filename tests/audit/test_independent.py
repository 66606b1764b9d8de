"""A second verifier, written from the format alone, comes to the same answer as ours on every case."""

import ast
from pathlib import Path
from typing import Any

import pytest

from froc.audit import bundle
from froc.errors import VerificationError
from tests.audit import independent
from tests.audit.cases import CASES, mutant
from tests.audit.conftest import NOW, Made, make_run

PAGE = "it does not render the page"
WORDS = "it writes no sentences"
FORM = "it looks at no field of a trial that no claim hangs on"
COMPARED = "it looks at no comparison"
AGAIN = "it looks at nothing that was measured again"
CLOCK = "it looks at no time stamp"
SEED = "it is given no auditor's seed"
BLIND = {
    "a comparison of more planned openings than any plan has": COMPARED,
    "another page": PAGE,
    "a script on the page": PAGE,
    "reason rewritten": WORDS,
    "an attack that was not run is not named": PAGE,
    "text as a trial's reason": FORM,
    "text as a trial's mean": FORM,
    "text as a trial's seed": FORM,
    "comparison: a verdict turned round": COMPARED,
    "comparison: a bound made smaller": COMPARED,
    "comparison: a front left out": COMPARED,
    "comparison: losses edited and signed": COMPARED,
    "comparison: a row removed and signed": COMPARED,
    "comparison: another base model": COMPARED,
    "comparison: a point that was not sealed": COMPARED,
    "a comparison about another model": COMPARED,
    "a comparison of other queries": COMPARED,
    "a comparison of other rows": COMPARED,
    "a comparison by code that nothing names": COMPARED,
    "a comparison of a point mixed by nothing": COMPARED,
    "a comparison without a level": COMPARED,
    "a comparison without a method at one level": COMPARED,
    "a comparison under another method's name": COMPARED,
    "a comparison opened never": COMPARED,
    "a comparison of a point mixed by words": COMPARED,
    "a comparison of a point mixed by more than all": COMPARED,
    "a comparison of a point mixed by another share than its name's": COMPARED,
    "a comparison of a mixture that is called trained": COMPARED,
    "a comparison without the base model": COMPARED,
    "a comparison of no method": COMPARED,
    "a comparison of a method without a front": COMPARED,
    "a comparison with a level twice": COMPARED,
    "a comparison with words about its bends": COMPARED,
    **dict.fromkeys(
        (
            "a report dated after its time stamp",
            "a time stamp by another authority",
            "a time stamp over something else",
            "a time stamp that is none",
        ),
        CLOCK,
    ),
    "no auditor's seed": SEED,
    "plan with a sampler in words": WORDS,
    "plan with a number of 4,000 digits": WORDS,
    "plan whose draw has a number of 4,000 digits": WORDS,
    "plan after more requests than a page holds": WORDS,
    "complete trial without an end": FORM,
    "interrupted trial that took a lifetime": FORM,
    "mean above the worst loss": FORM,
    "mean of a risk that was not planned": FORM,
    "average of a risk that was not planned": FORM,
    "measurement with free text": WORDS,
    "measurement with a setting that its metric has not": WORDS,
    "measurement under an attack in capitals": WORDS,
    "measurement under an attack that nobody has": WORDS,
    "plan with a method in words": WORDS,
    **{name: AGAIN for name in CASES if name.startswith("measured again")},
}
"""Cases that the second verifier accepts, and why: lies by the holder of a trusted key, or less than the verifier asked for."""


def second(made: Made, **more: Any) -> str | None:
    """Its verdict, None where it refuses."""
    arguments: dict[str, Any] = {"keys": [made.public], "model": made.model, "now": NOW, **more}
    try:
        return independent.check(made.bundle, **arguments)
    except independent.RefusedError:
        return None


def test_it_is_independent_and_short() -> None:
    files = sorted(Path(independent.__file__).parent.glob("*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    used |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    others = {name.partition(".")[0] for name in used if not name.startswith("tests.audit.independent.")}
    assert others <= {
        "base64", "cryptography", "datetime", "fractions", "hashlib", "json", "math", "os", "pathlib", "re", "stat", "typing",
    }  # fmt: skip
    assert sum(bool(line.strip()) for path in files for line in path.read_text(encoding="utf-8").splitlines()) < 600


@pytest.mark.parametrize(
    "name",
    [
        "good",
        "failing",
        "short",
        "compared",
        "early",
        "continued",
        "both",
        "again",
        "stamped",
        "curve",
        "wide",
        "small",
        "older",
    ],
)
def test_both_accept_what_is_honest(originals: dict[str, Made], name: str) -> None:
    made = originals[name]
    assert second(made) == made.verify().verdict


@pytest.mark.parametrize("knowledge", ["from-the-data", "holds-forgotten-text"])
def test_a_tokenizer_that_knows_the_data_is_a_limit_of_the_report(keys: Path, tmp_path: Path, knowledge: str) -> None:
    run = make_run(tmp_path / "run", more={"tokenizer": knowledge})
    made = Made(bundle.build(run, tmp_path, keys / "key", name="knows", now=NOW), run, keys / "key")
    assert "tokenizer-from-the-data" in made.verify().report["limits"]
    assert second(made) == "PASS"
    made.resign(lambda report: report["limits"].remove("tokenizer-from-the-data"))
    assert second(made) is None
    with pytest.raises(VerificationError, match="limits-differ"):
        made.verify()


def test_it_refuses_every_listed_population(originals: dict[str, Made]) -> None:
    """Its refusal of queries picked against the auditor's seed therefore says nothing about the draw."""
    assert originals["drawn"].verify().verdict == "PASS"
    assert second(originals["drawn"]) is None


@pytest.mark.parametrize("name", CASES)
def test_both_refuse_what_is_not(originals: dict[str, Made], tmp_path: Path, name: str) -> None:
    case = CASES[name]
    made = mutant(originals[case.of], case, tmp_path)
    how = dict(case.how(made))
    how.pop("audit_seed", None)
    accepted = second(made, **how) is not None
    assert accepted == (name in BLIND), BLIND.get(name)
