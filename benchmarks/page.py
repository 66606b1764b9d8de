"""The page in a browser: one printed sheet, nothing that accessibility rules object to, nothing said, nothing asked for.

    python benchmarks/page.py [--quick] [--pictures DIR] [PAGE.html ...]

Needs Chromium on the path and `pip install -e '.[page]'`; without pages it looks at those of docs/examples and at a hard
case. --pictures leaves screenshots (light, dark, phone) and PDFs (A4, Letter) to be looked at. Prints a table, and last one
line of JSON.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAPER = {"A4": ("210mm", "297mm"), "Letter": ("8.5in", "11in")}
SIZES = {"desk": (1180, 900), "phone": (390, 844)}
WIDER = "document.documentElement.scrollWidth > window.innerWidth"
TALLEST = 12_000
"""Pixels of a picture: browsers refuse more."""
COLUMN = 687
"""Pixels between the margins of an A4 sheet; what is wider is shrunk by the printer, all of it."""
MOST = 300_000
"""Bytes that a page stays below."""


@dataclass(frozen=True)
class Look:
    """What a browser shows of one page. first: paper -> sheets that page 1 takes; sheets: paper -> all of them. violations:
    scheme -> rules that axe-core finds broken. console: messages and errors. requests: those beside the page itself.
    wide: sizes at which the page is wider than the window."""

    name: str
    bytes: int
    first: dict[str, int]
    sheets: dict[str, int]
    violations: dict[str, list[str]]
    console: list[str]
    requests: list[str]
    wide: list[str]

    @property
    def holds(self) -> bool:
        """Whether nothing is to be mended."""
        on_one_sheet = all(number == 1 for number in self.first.values())
        return (
            on_one_sheet
            and self.bytes < MOST
            and not (any(self.violations.values()) or self.console or self.requests or self.wide)
        )


def missing() -> str | None:
    """What this machine lacks for a look, if anything."""
    if not any(map(shutil.which, BROWSERS)):
        return f"no browser ({', '.join(BROWSERS)}) is on the path"
    try:
        for name in ("axe_playwright_python", "playwright", "pypdf"):
            import_module(name)
    except ImportError as error:
        return f"{error.name} is not installed (pip install -e '.[page]')"
    return None


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    place = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield made
        finally:
            made.close()


def look(chromium: Any, page: Path, pictures: Path | None = None, rules: bool = True) -> Look:
    """Open a page in every way that people will. rules: run axe-core, which takes seconds on a long page."""
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    console: list[str] = []
    requests: list[str] = []
    violations: dict[str, list[str]] = {}
    wide: list[str] = []
    name = page.parent.name.removesuffix(".froc-audit") if page.name == "report.html" else page.stem
    context = chromium.new_context()
    tab = context.new_page()
    tab.on("console", lambda message: console.append(message.text))
    tab.on("pageerror", lambda error: console.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url) if request.url != page.as_uri() else None)
    tab.goto(page.as_uri())
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        for size, (width, height) in SIZES.items():
            tab.set_viewport_size({"width": width, "height": height})
            if tab.evaluate(WIDER):
                wide.append(size)
            if pictures is not None:
                tall = min(TALLEST, tab.evaluate("document.documentElement.scrollHeight"))
                clip = {"x": 0, "y": 0, "width": width, "height": tall}
                tab.screenshot(path=pictures / f"{name}-{scheme}-{size}.png", full_page=True, clip=clip)
            if size == "desk" and rules:
                tab.evaluate(axe)
                broken_rules = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
                violations[scheme] = [f"{rule['id']} ({len(rule['nodes'])})" for rule in broken_rules]
    # a dark screen prints light
    tab.emulate_media(media="print", color_scheme="dark")
    tab.set_viewport_size({"width": COLUMN, "height": 900})
    if tab.evaluate(WIDER):
        wide.append("paper")
    first, sheets = _printed(tab, None if pictures is None else pictures / name)
    context.close()
    return Look(name, page.stat().st_size, first, sheets, violations, console, requests, wide)


def _printed(tab: Any, stem: Path | None) -> tuple[dict[str, int], dict[str, int]]:
    """Sheets before the appendix begins, and all sheets, on each paper."""
    from pypdf import PdfReader

    first, sheets = {}, {}
    for paper, (width, height) in PAPER.items():
        data = tab.pdf(width=width, height=height, print_background=True, prefer_css_page_size=False)
        if stem is not None:
            stem.with_name(f"{stem.name}-{paper}.pdf").write_bytes(data)
        pages = PdfReader(io.BytesIO(data)).pages
        first[paper] = next(i for i, sheet in enumerate(pages) if "Appendix" in sheet.extract_text().split())
        sheets[paper] = len(pages)
    return first, sheets


def table(looks: Sequence[Look]) -> str:
    """The looks for people."""
    lines = [
        f"{'page':<22}{'kB':>6}  {'page 1: A4, Letter':<20}{'all':<9}{'axe light, dark':<18}{'console':<9}{'requests':<10}too wide"
    ]
    for look in looks:
        broken = ", ".join(str(len(rules)) for rules in look.violations.values())
        lines.append(
            f"{look.name[:21]:<22}{look.bytes / 1000:>6.0f}  {', '.join(map(str, look.first.values())):<20}"
            f"{', '.join(map(str, look.sheets.values())):<9}{broken:<18}{len(look.console):<9}{len(look.requests):<10}{', '.join(look.wide) or 'no'}"
        )
        lines += [f"    {scheme}: {rule}" for scheme, rules in look.violations.items() for rule in rules]
    return "\n".join(lines)


def main() -> None:
    """Look at pages, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--quick", action="store_true", help="the same; it takes seconds")
    arguments = parser.parse_args()
    if lacking := missing():
        sys.exit(f"page: {lacking}")
    with tempfile.TemporaryDirectory() as place:
        pages = arguments.pages or [*sorted((ROOT / "docs" / "examples").glob("*/report.html")), hard(Path(place))]
        if arguments.pictures is not None:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
        with browser() as chromium:
            looks = [look(chromium, page.resolve(), arguments.pictures) for page in pages]
    print(table(looks))
    print(
        json.dumps(
            {
                "page": {
                    "value": sum(look.holds for look in looks),
                    "goal": len(looks),
                    "holds": all(look.holds for look in looks),
                }
            }
        )
    )
    sys.exit(not all(look.holds for look in looks))


def hard(folder: Path) -> Path:
    """The page with everything on it: twelve risks, 300 trials, long names, a comparison, earlier requests."""
    sys.path.insert(0, str(ROOT))
    from tests.audit.hard import page

    place = folder / "hard.html"
    place.write_text(page(), encoding="utf-8")
    return place


if __name__ == "__main__":
    main()
