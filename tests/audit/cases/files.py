"""Files of the bundle, and what the report lists of them."""

import os
from collections.abc import Callable

from froc.audit import bundle_files
from tests.audit.cases.forging import Attack, Case, statement
from tests.audit.conftest import Made


def _linked(made: Made) -> None:
    path = made.bundle / "losses.csv"
    path.rename(made.bundle.parent / "elsewhere.csv")
    path.symlink_to(made.bundle.parent / "elsewhere.csv")


def _pipe(made: Made) -> None:
    (made.bundle / "losses.csv").unlink()
    os.mkfifo(made.bundle / "losses.csv")


def _hoard(made: Made) -> None:
    """Names of time stamps without end, which are one file."""
    (made.bundle / bundle_files.report_token("0" * 64)).write_bytes(b"0" * bundle_files.TOKEN_BYTES)
    for number in range(1, bundle_files.MOST_FILES):
        os.link(
            made.bundle / bundle_files.report_token("0" * 64), made.bundle / bundle_files.report_token(f"{number:064x}")
        )


def _page(change: Callable[[str], str]) -> Attack:
    """Ship another page, listed with its own digest."""

    def attack(made: Made) -> None:
        made.edit("report.html", change)
        files = {path.name: path.read_bytes() for path in made.bundle.iterdir()}
        made.restate(lambda body: body["predicate"].update(evidence=bundle_files.listing(files)))

    return attack


def _swollen(made: Made) -> None:
    for name in ("losses.csv", "trials.jsonl"):
        os.truncate(made.bundle / name, bundle_files.LIMITS[name])


def _with_folder(made: Made) -> None:
    (made.bundle / "keys").mkdir()
    (made.bundle / "keys" / "key.pub").write_text("")


CASES: dict[str, Case] = {
    "more bytes than a bundle may have": Case("bundle-too-large", _swollen),
    "a loss lowered": Case("evidence-digest:losses.csv", lambda m: m.edit("losses.csv", lambda t: t.replace(",1000\n", ",0\n", 1))),
    "an older table": Case("evidence-digest:losses.csv", lambda m: m.edit("losses.csv", lambda t: t.replace("c0003", "c0002"))),
    "a trial removed": Case("evidence-digest:trials.jsonl", lambda m: m.edit("trials.jsonl", lambda t: t.split("\n", 1)[1])),
    "the budget raised": Case("evidence-digest:plan.json", lambda m: m.edit("plan.json", lambda t: t.replace("0.15", "0.95"))),
    "the seal edited": Case("evidence-digest:seal.json", lambda m: m.edit("seal.json", lambda t: t.replace("c0001", "c0002"))),
    "the plan's envelope swapped": Case("evidence-digest:plan.dsse.json", lambda m: (m.bundle / "plan.dsse.json").write_bytes((m.bundle / "report.dsse.json").read_bytes())),
    "the page edited": Case("evidence-digest:report.html", lambda m: m.edit("report.html", lambda t: t.replace("10%", "1%"))),
    "another page": Case("html-not-rendering-of-signed-data", _page(lambda t: t.replace("10%", "1%"))),
    "a script on the page": Case("html-not-rendering-of-signed-data", _page(lambda t: t.replace("</body>", "<script>1</script></body>"))),
    "an unlisted file": Case("bundle-unlisted-file", lambda m: (m.bundle / "README.md").write_text("trust me")),
    "an unlisted folder": Case("bundle-unlisted-file", _with_folder),
    "more time stamps than signatures": Case("bundle-too-many-files", _hoard),
    "a missing file": Case("bundle-missing-file", lambda m: (m.bundle / "seal.json").unlink()),
    "a file too large": Case("bundle-file-too-large", lambda m: os.truncate(m.bundle / "plan.json", bundle_files.LIMITS["plan.json"] + 1)),
    "a link in the bundle": Case("bundle-symlink-or-special", _linked),
    "a pipe in the bundle": Case("bundle-symlink-or-special", _pipe),
    "evidence not listed": Case("evidence-list", statement(lambda b: b["predicate"]["evidence"].pop())),
    "evidence of another size": Case("evidence-digest:losses.csv", statement(lambda b: b["predicate"]["evidence"][0].update(size=1))),
}  # fmt: skip
