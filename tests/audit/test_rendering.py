"""The page: static, self-contained, escaped, accessible, and honest about what was decided."""

import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc.audit import cross_checks as facts
from froc.audit import rendering
from froc.audit import report as claims
from froc.audit.rendering import curves, figures, numbers, summary, words
from froc.audit.report import Facts
from froc.risk import shift
from tests.audit import hard
from tests.audit.conftest import Made

Page = tuple[dict[str, Any], Facts]
MOST = 300_000


class Outline(HTMLParser):
    """Tags in order with their attributes, whether they were closed, and how many points each picture has."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.points: list[int] = []
        self.named: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "svg":
            self.points.append(0)
            self.named.append(attributes.get("aria-hidden") == "true")
        if "svg" in self.open:
            kind = attributes.get("class") or ""
            self.named[-1] |= tag == "title"
            if tag in ("rect", "circle") or kind.split(" ")[0] in ("dot", "box", "gem", "reach"):
                self.points[-1] += 1
            if kind == "front":
                self.points[-1] += (attributes.get("d") or "").count("L") + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


KINDS = ["good", "failing", "short", "hard", "compared", "early", "drawn"]


def made(name: str, request: pytest.FixtureRequest) -> Page:
    """Report and facts of a bundle by name, or of the page with the most on it."""
    if name == "hard":
        return hard.made()
    bundle: Made = request.getfixturevalue("originals")[name]
    return bundle.read()["predicate"], bundle.facts()


@pytest.fixture(scope="module", params=KINDS)
def page(request: pytest.FixtureRequest) -> Page:
    return made(request.param, request)


@pytest.fixture(scope="module")
def text(page: Page) -> str:
    return rendering.html(*page)


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    assert parser.open == []
    return parser


def test_the_page_is_static_and_accessible(text: str) -> None:
    parser = outline(text)
    tags = [tag for tag, _ in parser.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("header") == tags.count("nav") == 1
    assert not {"script", "link", "img", "iframe", "object", "form", "details"} & set(tags)
    assert tags.count("table") == tags.count("caption")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in parser.tags if tag == "th")
    assert ("html", {"lang": "en"}) in parser.tags
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [name for _, attrs in parser.tags for name in attrs if name.startswith("on") or name == "src"]
    assert len(text.encode()) < MOST


def test_links_lead_to_sections_of_the_page_itself(text: str) -> None:
    parser = outline(text)
    places = [attrs["id"] for _, attrs in parser.tags if "id" in attrs]
    targets = [attrs["href"] or "" for tag, attrs in parser.tags if tag == "a"]
    assert len(places) == len(set(places))
    assert len(targets) == 16
    assert all(link.startswith("#") and link[1:] in places for link in targets)
    assert not [tag for tag, attrs in parser.tags if "href" in attrs and tag != "a"]
    named = [(attrs["aria-labelledby"] or "") for _, attrs in parser.tags if "aria-labelledby" in attrs]
    assert set(named) <= set(places)


def test_pictures_are_aggregates_with_a_name(text: str) -> None:
    parser = outline(text)
    assert parser.points
    assert max(parser.points) <= 200
    assert all(parser.named)
    assert all(attrs.get("role") == "img" or attrs.get("aria-hidden") for tag, attrs in parser.tags if tag == "svg")
    drawn = re.findall(r' (?:x|y|cx|cy|width|height)="([^"]*)"', text)
    assert all(re.fullmatch(r"-?\d+(\.\d)?", value) for value in drawn)


def test_the_same_report_gives_the_same_bytes(page: Page, text: str) -> None:
    report, facts = page
    shuffled = dict(sorted(report.items(), reverse=True))
    assert rendering.html(shuffled, facts) == text


def test_every_limit_status_and_step_has_words() -> None:
    assert set(claims.LIMITS) <= set(words.LIMITS)
    assert set(words.DECISIONS) == {claims.PASS, claims.FAIL, claims.NOT_ESTABLISHED}
    assert set(words.PLANS) == {claims.PLAN_SIGNED, claims.PLAN_ASSERTED}
    assert tuple(name for name, _ in words.VERIFY) == facts.STEPS


def test_limits_are_shown_in_full(page: Page, text: str) -> None:
    assert page[0]["limits"]
    for name in page[0]["limits"]:
        assert words.LIMITS[name].replace("'", "&#39;") in text


def test_a_decision_never_sounds_like_another(good: Made, failing: Made, short: Made) -> None:
    text = {kind: rendering.html(kind.read()["predicate"], kind.facts()) for kind in (good, failing, short)}
    assert "keeps every risk within its budget" in text[good]
    for kind, word in ((failing, "<strong>Fail</strong>"), (short, "<strong>Not established</strong>")):
        assert word in text[kind]
        assert "keeps every risk within" not in text[kind]
        assert "The claim that could not be made" in text[kind]
    assert "The forgetting and utility risks of configuration" in text[failing]
    assert "Opening 2, 1 planned: jointly 0.8, not 0.9" in text[short]
    assert "asserted, signed after the run" in text[good]


def test_text_cannot_become_markup_or_hide(page: Page) -> None:
    report, facts = page
    report = {**report, "plan": {**report["plan"], "task": {**report["plan"]["task"], "name": hard.ENDLESS}}}
    report["model"] = {**report["model"], "base": {**report["model"]["base"], "name": hard.ENDLESS}}
    text = rendering.html(report, facts)
    outline(text)
    assert "<script" not in text
    assert "<img" not in text
    assert "\\u202egnp.exe\\u200b\\u0007 😀🧪" in text
    assert not set(text) & set("\u202e\u200b\x07")
    # page 1 cuts names where it is seen; the appendix has them in full
    first, _, rest = text.partition('class="appendix"')
    assert "WWW" not in first
    assert "…" in first
    assert "W" * 9_000 in rest


def test_what_was_not_run_is_said(good: Made) -> None:
    text = rendering.html(good.read()["predicate"], good.facts())
    attacks = text[text.index('<section id="h"') : text.index('<section id="i"')]
    assert attacks.count("<strong>not run</strong>") == 14
    assert "Not run: no comparison of methods was signed with this report." in text
    whole = rendering.html(*hard.made())
    attacks = whole[whole.index('<section id="h"') : whole.index('<section id="i"')]
    assert attacks.count("<strong>not run</strong>") == 4


def test_every_started_trial_is_shown_failures_included(good: Made) -> None:
    text = rendering.html(good.read()["predicate"], good.facts())
    trials = text[text.index('<section id="e"') : text.index('<section id="f"')]
    assert trials.count('<th scope="row">c0') == len(good.facts().trials)
    assert "c0004, attempt 2" in trials
    assert "ValueError at froc.methods.npo:33" in trials
    assert "2 trials failed" in text


def test_an_unsigned_page_says_so_everywhere(good: Made) -> None:
    report = {**good.read()["predicate"], "signers": []}
    text = rendering.html(report, good.facts(), unsigned=True)
    assert "<title>UNSIGNED: " in text
    assert '@top-center { content: "UNSIGNED' in text
    assert text.count("nsigned") >= 4
    for words_ in (
        '<div class="decision PASS">',
        "Signed by",
        "froc audit verify good.froc-audit",
        "Trust the decision",
    ):
        assert words_ not in text


def test_a_verified_copy_says_what_was_seen(good: Made) -> None:
    seen = rendering.Verified(
        "2026-03-02T08:00:00Z", [("auditor", "ab" * 32)], False, "losses reproduced", [("files", "7 files")]
    )
    text = rendering.html(good.read()["predicate"], good.facts(), verified=seen)
    assert "<strong>Verified 2026-03-02.</strong>" in text
    assert "the model was not compared" in text
    assert "Losses reproduced" in text
    assert "7 files" in text
    assert "Verification is separate" not in text


def test_what_would_be_otherwise_begins_with_what_is(page: Page) -> None:
    report, facts = page
    rendered = curves.sensitivity(facts, report)
    row = next(row for row in report["certificate"]["candidates"] if row["config"] == report["config"])
    columns = {column["name"]: column["bounds"] for column in rendered["columns"]}
    assert columns["as signed"] == {risk: bounds["simultaneous"] for risk, bounds in row["cur"].items()}
    for risk in rendered["risks"]:
        lower, higher = float(columns["1‰ lower"][risk]), float(columns["1‰ higher"][risk])
        assert lower <= float(columns["as signed"][risk]) <= higher
        assert float(columns["at 99%"][risk]) >= float(columns["at 80%"][risk])


@given(st.lists(st.integers(0, 1000), max_size=400))
def test_a_class_of_losses_never_tells_of_few(losses: list[int]) -> None:
    rendered = curves.merged(losses)
    if len(losses) < curves.ENOUGH:
        assert rendered == []
        return
    assert sum(number for _, _, number in rendered) == len(losses)
    assert all(number >= curves.FEWEST for _, _, number in rendered)
    assert all(sum(low <= loss <= high for loss in losses) == number for low, high, number in rendered)
    assert all(lower[1] < upper[0] for lower, upper in pairwise(rendered))


@given(st.decimals(0, 1, places=6), st.decimals(0, 1, places=4))
def test_shift_by_square_roots_is_shift_by_angles(bound: Any, rho: Any) -> None:
    assert float(curves.shifted(bound, rho)) == pytest.approx(shift.shifted(float(bound), float(rho)), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 90), st.sampled_from(figures.WORST)), max_size=400))
def test_a_timeline_has_few_bars_and_loses_no_failure(trials: list[tuple[int, int, str]]) -> None:
    spans = [figures.Span(start, start + length, kind) for start, length, kind in trials]
    rows = figures.lanes(spans)
    bars = [bar for row in rows for bar in row]
    assert len(bars) <= figures.BARS + len(rows)
    assert all(earlier.end <= later.start for row in rows for earlier, later in pairwise(row))
    assert any(bar.kind == "failed" for bar in bars) == any(span.kind == "failed" for span in spans)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), max_size=120))
def test_a_trial_takes_the_first_row_that_is_free(some: list[tuple[int, int]]) -> None:
    spans = sorted(
        (figures.Span(start, start + length, "complete") for start, length in some), key=lambda s: (s.start, s.end)
    )
    rows: list[list[figures.Span]] = []
    for span in spans:
        free = next((row for row in rows if row[-1].end <= span.start), None)
        if free is None:
            rows.append([span])
        else:
            free.append(span)
    assert figures.lanes(spans) == rows


def test_a_timeline_of_very_many_trials_at_once_is_small_and_soon_there() -> None:
    """The log of a bundle may hold so many; one row for each would take hours, and a page that nobody could open."""
    started = time.process_time()
    rows = figures.lanes([figures.Span(0, 5 + number % 7, "complete") for number in range(200_000)])
    assert time.process_time() - started < 20
    assert len(rows) <= figures.LANES
    assert sum(map(len, rows)) <= figures.BARS + figures.LANES
    assert max(bar.end for row in rows for bar in row) == 11


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve Ωμέγα 日本 😀", "naïve Ωμέγα 日本 😀"),
        ("a\u202eb\u2066c\u200dd\ufeff", "a\\u202eb\\u2066c\\u200dd\\ufeff"),
        ("e\u0301\u0302\u0303", "e\u0301\\u0302\\u0303"),
        ("a\tb\nc\x00\u2028\u3000", "a\\u0009b\\u000ac\\u0000\\u2028\\u3000"),
        # assigned after the edition of Unicode that is asked, by some versions of Python and not by others
        ("\u0378\U0001fae8\U00011f00", "\\u0378\U0001fae8\\u11f00"),
    ],
)
def test_signs_that_hide_or_pile_up_are_spelt_out(text: str, shown: str) -> None:
    assert numbers.visible(text) == shown


def test_risks_beyond_what_a_sheet_holds_are_the_nearest_to_their_budgets() -> None:
    risks = [{"name": f"r{i}", "bound": f"0.0{i:02d}", "budget": "0.1"} for i in range(20)]
    assert [k["name"] for k in summary._nearest(risks)] == [f"r{i}" for i in range(8, 20)]


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.050539", "5.06%"), ("0.05", "5.00%"), ("1.0", "100.00%"), ("1e-05", "0.01%"), ("0.0", "0.00%")],
)
def test_bounds_are_shown_rounded_up(value: str, text: str) -> None:
    assert numbers.up(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.000765423", "7.7e-4"), ("1.0", "1.000"), ("0.0", "0"), ("0.0520001", "0.053"), ("3e-200", "3.0e-200")],
)
def test_p_values_are_shown_rounded_up(value: str, text: str) -> None:
    assert numbers.small(value) == text


def test_pages_keep_the_words_that_they_were_signed_with(originals: dict[str, Made]) -> None:
    """A report of a version that sealed no weights; and no report of today can have those words, which claimed more."""
    older, today = (page_of(originals[name]) for name in ("older", "good"))
    for text, page in (
        ("no trial is missing", older),
        ("numbered without a gap", today),
        ("Every logged trial", today),
        ("Methods at equal utility", older),
        ("Methods compared", today),
    ):
        assert text in page
    assert "no trial is missing" not in today
    assert "numbered without a gap" not in older
    assert "Methods at equal utility" not in today
    assert "Methods compared" not in older


def page_of(made: Made) -> str:
    return (made.bundle / "report.html").read_text(encoding="utf-8")
