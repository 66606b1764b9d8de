"""Every fixed sentence that a reader of a report meets: on the page, in Markdown and model cards, and where `verify` prints.

What a template or a string says is split into sentences; what is put in at run time stands as `{}`. Labels of one or two
words claim nothing and are left out, as are errors: they say what does not hold.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from froc.measuring.named_risks import KNOWN

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "audit" / "rendering").glob("*.jinja"))
MODULES = [
    ROOT / name
    for name in (
        "audit/rendering/words.py", "audit/rendering/earlier_words.py", "audit/rendering/summary.py", "audit/rendering/meanings.py", "audit/rendering/appendix.py", "audit/assurance.py", "audit/bound_weights.py", "audit/model_folder.py",
        "audit/verification.py", "audit/cross_checks.py", "audit/timestamps.py", "audit/reexecution.py", "audit/reexecution_statement.py", "audit/exports/markdown.py",
        "audit/exports/model_card.py", "audit/exports/page.py", "audit/exports/cyclonedx.py", "audit/exports/svr.py",
        "froc/fidelity.py", "froc/risk/positive_control.py", "froc/risk/wording.py",
    )
]  # fmt: skip
WORDS = 3
"""Words that a sentence has at least."""
_BLOCK = re.compile(
    r"</?(p|dt|dd|th|td|tr|li|ul|ol|h[1-6]|caption|figcaption|pre|div|section|table|title|aside|strong|figure|footer)\b[^>]*>"
)
_STYLE = re.compile(r"<style>.*?</style>|@page.*?^}", re.DOTALL | re.MULTILINE)


def everywhere() -> dict[str, set[str]]:
    """File, relative to the repository -> its fixed sentences."""
    named = {path.relative_to(ROOT).as_posix(): set(_template(path)) for path in TEMPLATES}
    named |= {path.relative_to(ROOT).as_posix(): set(_module(path)) for path in MODULES}
    return named | {"froc/measuring/named_risks.py": {known.says for known in KNOWN.values()}}


def _template(path: Path) -> Iterator[str]:
    text = re.sub(r"\{#.*?#\}", "", _STYLE.sub("", path.read_text(encoding="utf-8")), flags=re.DOTALL)
    for expression in re.findall(r"\{[{%].*?[}%]\}", text, flags=re.DOTALL):
        for constant in re.findall(r'"([^"]*)"', expression):
            yield from _sentences(constant)
    plain = re.sub(r"\{%.*?%\}", "", re.sub(r"\{\{.*?\}\}", "{}", text, flags=re.DOTALL), flags=re.DOTALL)
    yield from _sentences(re.sub(r"<[^>]*>", "", _BLOCK.sub("\0", plain)))


def _module(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out = {id(node) for parent in ast.walk(tree) for node in _unsaid(parent)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in left_out:
            yield from _sentences(
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield from _sentences(node.value)


def _unsaid(node: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, errors, patterns, and the parts of formatted strings, which are said as a whole."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    elif isinstance(node, ast.Raise):
        yield from ast.walk(node)
    elif isinstance(node, ast.JoinedStr):
        yield from (part for part in node.values if isinstance(part, ast.Constant))


def _sentences(text: str) -> Iterator[str]:
    for block in text.split("\0"):
        for sentence in re.split(r"(?<=[.?!])\s+", re.sub(r"\s+", " ", block)):
            plain = sentence.strip(" .,;:()“”")
            if len(re.findall(r"[^\W\d_]{2,}", plain)) >= WORDS:
                yield plain
