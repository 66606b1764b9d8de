"""The page: static, self-contained, escaped, and honest about what was decided."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from audit import claims, rendering


class Outline(HTMLParser):
    """Tags in order, and whether they were closed."""

    VOID = ("meta", "br", "path", "rect", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(params=["good", "failing", "short"])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.getfixturevalue(request.param).read()["predicate"]
    return found


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert found.open == []
    return found


def test_the_page_is_static_and_accessible(report: dict[str, Any]) -> None:
    page = rendering.html(report)
    found = outline(page)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("h1") == 1
    assert not {"script", "link", "a", "img", "iframe", "object", "form"} & set(tags)
    assert tags.count("table") == tags.count("caption")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in found.tags if tag == "th")
    assert ("html", {"lang": "en"}) in found.tags
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.search(r"https?:|url\(|@import", page)
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on") or name in ("href", "src")]
    assert any(attrs.get("role") == "img" for tag, attrs in found.tags if tag == "svg")
    assert len(page) < 200_000


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any]) -> None:
    shuffled = dict(sorted(report.items(), reverse=True))
    assert rendering.html(shuffled) == rendering.html(report)


def test_every_limit_and_status_has_words() -> None:
    assert set(claims.LIMITS) <= set(rendering.LIMITS)
    assert set(rendering.DECISIONS) == {claims.PASS, claims.FAIL, claims.NOT_ESTABLISHED}
    assert set(rendering.PLANS) == {claims.PLAN_SIGNED, claims.PLAN_ASSERTED}


def test_limits_are_shown_in_full(report: dict[str, Any]) -> None:
    page = rendering.html(report)
    assert report["limits"]
    for name in report["limits"]:
        assert rendering.LIMITS[name].replace("'", "&#39;") in page


def test_a_decision_never_sounds_like_another(good: Any, failing: Any, short: Any) -> None:
    words = {made: rendering.html(made.read()["predicate"]) for made in (good, failing, short)}
    assert "keeps every risk within its budget" in words[good]
    for made, word in ((failing, "<strong>Fail</strong>"), (short, "<strong>Not established</strong>")):
        assert word in words[made]
        assert "keeps every risk within" not in words[made]
        assert "The claim that could not be made" in words[made]
    assert "Opening 2, 1 planned: jointly 0.8, not 0.9" in words[short]
    assert "asserted, signed after the run" in words[good]


def test_text_cannot_become_markup_or_hide(report: dict[str, Any]) -> None:
    report["plan"]["task"]["name"] = "<script>alert(1)</script>\u202eevil\u200b\x07"
    report["model"]["base"]["name"] = '"><img src=x>'
    page = rendering.html(report)
    outline(page)
    assert "<script" not in page
    assert "<img" not in page
    assert "\\u202eevil\\u200b\\u0007" in page
    assert not set(page) & set("\u202e\u200b\x07")


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.050539", "5.06%"), ("0.05", "5.00%"), ("1.0", "100.00%"), ("1e-05", "0.01%"), ("0.0", "0.00%")],
)
def test_bounds_are_shown_rounded_up(value: str, text: str) -> None:
    assert rendering.up(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.000765423", "7.7e-4"), ("1.0", "1.000"), ("0.0", "0"), ("0.0520001", "0.053"), ("3e-200", "3.0e-200")],
)
def test_p_values_are_shown_rounded_up(value: str, text: str) -> None:
    assert rendering.small(value) == text
