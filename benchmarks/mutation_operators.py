"""Small faults in source code, for `benchmarks/mutants.py`: each changes one expression or statement of one file.

Left alone: annotations, docstrings, decorators, texts and their parts, assertions (they narrow types), messages of errors, blocks for type
checkers, and the ranges of hyperparameters, which are choices and claim nothing.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
PAIRS = (("min", "max"), ("minimum", "maximum"), ("any", "all"), ("floor", "ceil"), ("up", "down"))
SWAPPED = {name: counterpart for pair in PAIRS for name, counterpart in (pair, pair[::-1])}
DEFAULTS = {"bool": ("False", "True"), "int": ("0",), "float": ("0.0",), "str": ("''",)}
"""What a function of this type returns instead of its result; others return None."""
RANGES = ("Range", "Choice")
REMOVED = (ast.AugAssign, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutant:
    """One fault: text at (line, column) to (end line, end column), columns in bytes, becomes `text`."""

    file: str
    kind: str
    start: tuple[int, int]
    end: tuple[int, int]
    text: str

    def apply(self, source: str) -> str:
        """The whole file with the fault in it."""
        lines = source.encode().splitlines(keepends=True)
        (first, begin), (last, stop) = self.start, self.end
        head, rest = lines[first - 1][:begin], lines[last - 1][stop:]
        return b"".join([*lines[: first - 1], head, self.text.encode(), rest, *lines[last:]]).decode()

    def alters(self, source: str) -> bool:
        """Whether the file still compiles and means something else."""
        try:
            return ast.dump(ast.parse(self.apply(source))) != ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def mutants(source: str, file: str) -> list[Mutant]:
    """Faults of a file in the order of lines; a few of them are no valid Python (`Mutant.alters`)."""
    produced: list[Mutant] = []
    _visit(ast.parse(source), "", lambda node, kind, text: produced.append(_mutant(file, node, kind, text)))
    return sorted(dict.fromkeys(produced), key=lambda mutant: (mutant.start, mutant.end, mutant.kind, mutant.text))


def _mutant(file: str, node: Any, kind: str, text: str) -> Mutant:
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return Mutant(file, kind, start, end, text)


Emit = Callable[[ast.AST, str, str], None]


def _visit(node: ast.AST, returns: str, emit: Emit) -> None:
    """Go through all that is mutated. returns: type of the function around, as it is written."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        returns = ast.unparse(node.returns) if node.returns else ""
    for kind, text in _replacements(node, returns):
        emit(node, kind, text)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        emit(node.test, "condition", f"(not ({ast.unparse(node.test)}))")
    for child in _children(node):
        _visit(child, returns, emit)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a node in which faults make sense."""
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Raise | ast.Import | ast.ImportFrom) or _is_range(node):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    left_out = {"annotation", "returns", "decorator_list", "type_params", "bases", "ctx"}
    for name, value in ast.iter_fields(node):
        if name not in left_out:
            yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


def _replacements(node: ast.AST, returns: str) -> Iterator[tuple[str, str]]:
    """(kind, source) of whatever a node may be replaced by."""
    if isinstance(node, ast.expr) and not _is_range(node):
        yield from _of_expression(node)
    elif isinstance(node, ast.Return) and node.value is not None:
        for default in DEFAULTS.get(returns, ("None",)):
            if ast.unparse(node.value) != default:
                yield "return", f"return {default}"
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "arithmetic", _unparsed(node, op=ARITHMETIC[type(node.op)]())
    if isinstance(node, REMOVED) or _is_call(node) or _stores_in_place(node):
        yield "removed", "pass"


def _is_range(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in RANGES


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)


def _stores_in_place(node: ast.AST) -> bool:
    """An assignment whose removal is no missing name."""
    return isinstance(node, ast.Assign) and all(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets)


def _of_expression(node: ast.expr) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                changed = [*node.ops[:place], COMPARISONS[type(operator)](), *node.ops[place + 1 :]]
                yield "comparison", f"({_unparsed(node, ops=changed)})"
        case ast.BinOp() if type(node.op) in ARITHMETIC and not isinstance(node.left, ast.JoinedStr):
            yield "arithmetic", f"({_unparsed(node, op=ARITHMETIC[type(node.op)]())})"
        case ast.BoolOp():
            yield "logic", f"({_unparsed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())})"
        case ast.UnaryOp(op=ast.Not()):
            yield "logic", f"({ast.unparse(node.operand)})"
        case ast.Constant():
            yield from (("constant", text) for text in _constants(node.value))
        case ast.Call():
            yield from _of_call(node)


def _constants(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), f"({value - 1})"]
    # no text: words are the business of tests of words
    return [repr(value * 2), repr(value / 2)] if isinstance(value, float) and value else []


def _of_call(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in SWAPPED:
        function = copy.deepcopy(node.func)
        setattr(function, "attr" if isinstance(function, ast.Attribute) else "id", SWAPPED[name])
        yield "swapped function", _unparsed(node, func=function)
    plain = len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    # both are the same for these, or the order is a type's
    if plain and name not in {*SWAPPED, "isinstance", "issubclass", "getattr", "setattr", "cast"}:
        yield "swapped arguments", _unparsed(node, args=[node.args[1], node.args[0], *node.args[2:]])


def _unparsed(node: ast.AST, **changed: object) -> str:
    changed_node = copy.copy(node)
    for name, value in changed.items():
        setattr(changed_node, name, value)
    return ast.unparse(changed_node)
