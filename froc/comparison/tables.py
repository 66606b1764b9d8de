"""Tables of a comparison: Markdown, LaTeX, or rows for a terminal. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

from froc.comparison.document import BEFORE, BUDGETS, ordered, sentences
from froc.data.task import FORGETTING, UTILITY

Rows = tuple[list[str], list[list[str]]]


def rows(document: Mapping[str, Any]) -> Rows:
    """(head, body): a line per method, ordered by the first level; results before mixing, then mix and remaining risk per level."""
    levels = [stage for stage in ordered(document["stages"]) if stage != BEFORE]
    head = ["method", "left, before", "utility loss"]
    for level in levels:
        head += [f"share at {float(level):.0%}", "left"]
    body = []
    for method in document["ranking"][(levels or [BEFORE])[0]]["methods"]:
        before = document["stages"][BEFORE][method]
        line = [method, _interval(before[FORGETTING]), f"{before[UTILITY]['mean']:.3f}"]
        for level in levels:
            point = document["stages"][level][method]
            line += [f"{point['mix']:.3f}", _interval(point[FORGETTING])]
        body.append([*line, _interval(document["hypervolume"][method])])
    return [*head, "hypervolume"], body


def region(document: Mapping[str, Any]) -> Rows:
    """(head, body): the smallest forgetting budget that each method meets, by utility budget."""
    head = ["method", *(f"utility {budget:g}" for budget in BUDGETS)]
    body = []
    for method, of_method in document["region"].items():
        at = [of_method["at"][f"{budget:g}"] for budget in BUDGETS]
        body.append([method, *("none" if forgetting is None else f"{forgetting:.3f}" for forgetting in at)])
    return head, body


def markdown(document: Mapping[str, Any]) -> str:
    """The whole comparison, for a repository or a report."""
    lines = [f"# Methods at equal utility: {document['task']['name']}", "", *_description(document), ""]
    lines += [*_markdown(rows(document)), "", *(f"- {line}" for line in sentences(document)), ""]
    lines += ["Smallest forgetting budget that each method could have met:", "", *_markdown(region(document)), ""]
    return "\n".join(lines)


def latex(document: Mapping[str, Any]) -> str:
    """A `tabular` with rules of booktabs, for a paper."""
    head, body = rows(document)
    lines = [f"% {line}" for line in _description(document)]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule"]
    lines.append(" & ".join(map(_escaped, head)) + r" \\")
    lines += ["\\midrule", *(" & ".join(map(_escaped, line)) + r" \\" for line in body)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _description(document: Mapping[str, Any]) -> list[str]:
    n, metrics = document["n"], document["metrics"]
    return [
        f"Base model {document['model']['name']}; {n[FORGETTING]} forget and {n[UTILITY]} retain units that no share and no "
        f"configuration was chosen on, measured by {metrics[FORGETTING]} and {metrics[UTILITY]}.",
        f"Intervals hold together with confidence {document['confidence']:.0%} in each of three families: methods, pairs, fronts. "
        f"{document['opening']['statement'].capitalize()}.",
    ]


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.3f} [{interval['lower']:.3f}, {interval['upper']:.3f}]"


def _markdown(table: Rows) -> list[str]:
    head, body = table
    return [_line(head), _line(["---"] * len(head)), *(_line(line) for line in body)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%")
