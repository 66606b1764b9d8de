"""The page in a browser, where there is one: one sheet, no broken rule, nothing said, nothing asked for."""

from pathlib import Path

import page as looking
import pytest

from froc.audit import rendering
from tests.audit import hard
from tests.audit.test_examples import verified
from tests.commands import ROOT

LACKING = looking.missing()


@pytest.mark.skipif(LACKING is not None, reason=LACKING or "")
def test_pages_are_one_sheet_accessible_and_silent(tmp_path: Path) -> None:
    example = ROOT / "docs" / "examples" / "pass.froc-audit" / "report.html"
    text = example.read_text(encoding="utf-8")
    result = verified("pass")
    # a page that breaks everything, to see that a look sees it
    broken = '<img src="x.png"><p style="width:2000px;height:1500px;color:#eee">'
    pages = {
        "hard": hard.page(),
        "unsigned": rendering.html(result.report, result.facts, unsigned=True),
        "broken": text.replace('<p class="kind">', broken),
    }
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    with looking.browser() as chromium:
        looks = [looking.look(chromium, tmp_path / f"{name}.html", rules=False) for name in ("hard", "unsigned")]
        looks.append(looking.look(chromium, example))
        bad = looking.look(chromium, tmp_path / "broken.html")
    assert all(look.holds for look in looks), looking.table(looks)
    assert bad.console
    assert bad.wide
    assert any(bad.violations.values())
    assert max(bad.first.values()) > 1
