"""Every fixed sentence of a report is held true by a check, or says itself that it is not."""

import ast
import tomllib
from pathlib import Path

import pytest

from froc.audit.rendering import words
from froc.measuring.named_risks import Known
from tests.audit import fixed_sentences, switches
from tests.audit.cases import CASES
from tests.audit.test_checks import COMPUTED

HELD: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("fixed_sentences.toml").read_text(encoding="utf-8"))
"""Holder -> sentences."""
UNHELD = {"earlier", "signer", "absence", "definition", "identifier"}


def test_every_sentence_has_one_holder() -> None:
    listed = [sentence for sentences in HELD.values() for sentence in sentences]
    spoken = set().union(*fixed_sentences.everywhere().values())
    assert sorted(spoken - set(listed)) == [], "say in fixed_sentences.toml what makes these true"
    assert sorted(set(listed) - spoken) == [], "nobody says these any more"
    assert len(listed) == len(set(listed))


def test_a_new_sentence_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, module = tmp_path / "page.jinja", tmp_path / "said.py"
    page.write_text(
        '<p>Nothing {{ "was ever looked at" if x }} was <b>forgotten</b> here. All is well.</p>', encoding="utf-8"
    )
    module.write_text('"""A docstring says nothing here."""\nX = f"{3} queries were read"\n', encoding="utf-8")
    monkeypatch.setattr(fixed_sentences, "ROOT", tmp_path)
    monkeypatch.setattr(fixed_sentences, "TEMPLATES", [page])
    monkeypatch.setattr(fixed_sentences, "MODULES", [module])
    monkeypatch.setattr(fixed_sentences, "KNOWN", {"new": Known("rouge_l", "it is told again")})
    assert fixed_sentences.everywhere() == {
        "page.jinja": {"was ever looked at", "Nothing {} was forgotten here", "All is well"},
        "said.py": {"{} queries were read"},
        "froc/measuring/named_risks.py": {"it is told again"},
    }


@pytest.mark.parametrize("holder", [name for name in HELD if name not in UNHELD])
def test_what_holds_a_sentence_is_there_and_needed(holder: str) -> None:
    kind, _, name = holder.partition(" ")
    if kind == "check":
        codes = {code for code in switches.listed().values() if code} | {
            code for codes_of_place in COMPUTED.values() for code in codes_of_place
        }
        # that the check cannot be taken away is shown by the cases, in test_checks
        assert name in codes
        assert name in {case.check for case in CASES.values()}
    else:
        path, _, function = name.partition("::")
        tree = ast.parse((fixed_sentences.ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_is_the_signers_word_is_said_to_be() -> None:
    """Sentences about what was done in a run stand beside the one that says whose word they are."""
    threats = dict(words.THREATS)
    assert threats["The procedure"].endswith("that it was done so in this run is the signer's word.")
    assert "self-reported-losses" in words.LIMITS
    assert "openings-are-the-signers-count" in words.LIMITS
