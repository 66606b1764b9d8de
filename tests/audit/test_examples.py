"""The example reports verify, say what their names say, and page 1 answers what a governance reader asks."""

import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from froc.audit import canonical_json, keys, verification
from tests.commands import ROOT

PLACE = ROOT / "docs" / "examples"
VERDICTS = {"pass": "PASS", "fail": "FAIL", "not-established": "NOT_ESTABLISHED"}


class Text(HTMLParser):
    """The words of a page's first article, and nothing of its style."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.words = False, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside |= tag == "article" and ("aria-label", "Summary") in attrs

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "article"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.words.append(data)


def first_page(bundle: Path) -> str:
    reader = Text()
    reader.feed((bundle / "report.html").read_text(encoding="utf-8"))
    return " ".join(" ".join(reader.words).split())


def verified(name: str) -> verification.Result:
    """An example, verified a day after it was issued: reports expire, and examples would with them."""
    bundle, key = PLACE / f"{name}.froc-audit", PLACE / "signer.pem.pub"
    payload, _ = keys.verify((bundle / "report.dsse.json").read_bytes(), [keys.load_public(key)])
    issued = datetime.fromisoformat(canonical_json.strict_json(payload)["predicate"]["issued"])
    return verification.verify(bundle, keys=[key], now=issued + timedelta(days=1))


@pytest.mark.parametrize("name", VERDICTS)
def test_the_examples_verify(name: str) -> None:
    result = verified(name)
    assert result.verdict == VERDICTS[name]
    assert result.plan_status == "signed-before-first-trial"


def test_ten_questions_are_answered_by_page_1() -> None:
    text = (ROOT / "docs" / "reading-test.md").read_text(encoding="utf-8")
    questions = re.findall(r"^\d+\. \*\*(.+?)\*\*\n((?:   > .+\n)+)", text, re.MULTILINE)
    assert len(questions) == 10
    page = first_page(PLACE / "pass.froc-audit")
    for question, quoted in questions:
        assert question.endswith("?")
        answer = " ".join(quoted.replace("   > ", "").split())
        # what differs from run to run is left out
        place = 0
        for part in answer.split("…"):
            place = page.find(part.strip(), place)
            assert place >= 0, f"page 1 does not say: {part.strip()}"
