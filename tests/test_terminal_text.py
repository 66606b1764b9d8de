"""Text from outside (paths, names, texts of files) is printed only after it was made visible: control characters spelt out.

These tests read the source: what is given to a console, a table or a progress bar is fixed text, a number by its format, or goes through
one of `VISIBLE`. What does not is listed in `ALLOWED`, with the reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cli", "audit", "search")
VISIBLE = {"visible", "name", "marked"}
CALLS = {"print", "add_row", "add_column", "add_task", "Text"}
TITLES = ("title", "caption")
NUMBERS = set("%gdfe")
"""Last letter of formats that take numbers alone."""
TABLE = "a table, whose cells are looked at where they are put in"
CELLS = "numbers by their format, or cells that are looked at here"
MARKUP = "markup, in which every text was made visible"
ALLOWED = {
    ("cli/audit/verify.py", "table"): TABLE,
    ("cli/bench.py", "_table(speeds, facts)"): TABLE,
    ("cli/bench.py", "memory_lines(memory)"): TABLE,
    ("cli/memory.py", "memory_lines(memory)"): TABLE,
    ("cli/memory.py", "parts"): CELLS,
    ("cli/memory.py", "fits"): "yes, no or nothing",
    ("cli/certify.py", "table"): TABLE,
    ("cli/certify.py", "cells"): CELLS,
    ("cli/compare.py", "table"): TABLE,
    ("cli/list_.py", "_in_full(rows[0])"): MARKUP,
    ("cli/list_.py", "_table(label, rows)"): TABLE,
    ("cli/list_.py", "map(_lines, (*tag, entry['summary'], ranges, entry['source']))"): CELLS,
    ("search/progress.py", "duration(passed)"): "a number with its unit",
    ("search/progress.py", "count"): "two numbers",
    ("search/progress.py", "left"): "a number with its unit",
    ("cli/monitor.py", "section.rich()"): TABLE,
    ("cli/plan.py", "section.rich()"): TABLE,
    ("cli/show/__init__.py", "trials(log, limits(plan['budget']))"): TABLE,
    ("cli/show/summary.py", "_certificate(certificate)"): TABLE,
    ("cli/show/summary.py", "_every_risk(certificate, row)"): TABLE,
    ("cli/show/summary.py", "before"): CELLS,
    ("cli/show/summary.py", "cells"): CELLS,
    ("cli/show/summary.py", "means"): CELLS,
    ("cli/show/summary.py", "method"): CELLS,
    ("cli/show/summary.py", "verdict"): "one of three fixed texts",
    ("search/progress.py", "verdict"): MARKUP,
    ("search/progress.py", "why"): MARKUP,
}


def _called(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _inner(node: ast.expr) -> list[ast.expr] | None:
    """What an expression shows text of; None where it is no mere putting together."""
    match node:
        case ast.Constant():
            return []
        case ast.JoinedStr(values=parts) | ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            return parts
        case ast.FormattedValue(value=value, format_spec=ast.JoinedStr(values=[*_, ast.Constant(value=str(spec))])):
            return [] if spec[-1] in NUMBERS else [value]
        case ast.FormattedValue(value=value) | ast.Starred(value=value):
            return [value]
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
            return [element]
        case ast.Call(func=ast.Attribute(attr="join", value=ast.Constant()), args=[parts]):
            return [parts]
        case ast.Call(func=ast.Name(id="map"), args=[function, *_]) if _called(function) in VISIBLE:
            return []
        case ast.Call(func=function) if _called(function) in VISIBLE | {"len"}:
            return []
    return None


def raw(node: ast.expr) -> Iterator[str]:
    """Parts of an expression that reach the terminal as they are."""
    inner = _inner(node)
    if inner is None:
        yield ast.unparse(node)
    for part in inner or ():
        yield from raw(part)


def printed(source: str) -> Iterator[tuple[int, str]]:
    """Line and source of what a module prints as it is."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = _called(node.func)
        shown = [keyword.value for keyword in node.keywords if keyword.arg in TITLES and name in {*CALLS, "Table"}]
        if name == "update" and "progress" in ast.unparse(node.func):
            shown = [keyword.value for keyword in node.keywords if keyword.arg in ("description", "note")]
        for part in (*(node.args if name in CALLS else ()), *shown):
            yield from ((node.lineno, text) for text in raw(part))


def test_what_is_printed_was_made_visible() -> None:
    seen, faults = set(), []
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for line, text in printed(path.read_text(encoding="utf-8")):
            seen.add((name, text))
            if (name, text) not in ALLOWED:
                faults.append(f"{name}:{line} prints {text}")
    assert not faults, "make it visible (cli/words.py, froc/visible.py), or allow it by name: " + "; ".join(faults)
    assert set(ALLOWED) == seen, "an exception is not needed any more"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("results.print(f'wrote {path}')", "path"),
        ("results.print(f'wrote {path:<12}')", "path"),
        ("results.print(', '.join(names))", "names"),
        ("results.print(', '.join(f'a {n}' for n in names))", "n"),
        ("results.print('a' + (b if c else visible(d)))", "b"),
        ("results.print(*rows)", "rows"),
        ("Table(title=f'of {name}')", "name"),
        ("table.add_row(visible(a), str(b))", "str(b)"),
        ("self._progress.update(bar, note=note)", "note"),
        ("print(line, file=sys.stderr)", "line"),
    ],
)
def test_what_was_not_made_visible_is_seen(line: str, text: str) -> None:
    assert [shown for _, shown in printed(line)] == [text]


@pytest.mark.parametrize(
    "line",
    [
        "results.print(f'wrote {words.visible(path)} and {share:.0%}')",
        "results.print(' '.join(map(words.name, names)))",
        "results.print(words.visible(f'wrote {path}'), soft_wrap=wrap)",
        "results.print(f'{len(names)} names')",
        "Table(title='fixed', box=box)",
        "bars.update(other, note=note)",
    ],
)
def test_what_is_visible_or_a_number_passes(line: str) -> None:
    assert not list(printed(line))
