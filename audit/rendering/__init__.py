"""Verified report and evidence -> one static page: no script, no external link, nothing loaded, the same bytes everywhere.

    earlier_words  fixed words of pages whose reports sealed no weights, so that they still verify
    words      the fixed words, none of which a signer chooses
    numbers    numbers and names, rounded against the claim, unable to hide anything
    figures    pictures as inline SVG
    meanings   what is said of a risk, by how it was measured
    summary    page 1, for a reader without statistics
    appendix   what a reader with statistics needs

A bundle's page is a pure function of its report and evidence, so it cannot say that it was verified; it says how to
verify it. Two other copies say more: the one that `froc audit verify --page` writes states the result, and that of an
unsigned run is marked unsigned throughout. The list of evidence omits the page itself.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from froc.audit.rendering import appendix, curves, numbers, summary, words
from froc.audit.rendering.earlier_words import EARLIER
from froc.audit.rendering.numbers import (
    capitalised,
    cut,
    down,
    four,
    measured,
    params,
    percent,
    short,
    small,
    up,
    visible,
    whole,
)
from froc.audit.rendering.summary import Verified
from froc.audit.report import Facts

__all__ = ["Verified", "html"]
HERE = Path(__file__).parent


def html(report: Mapping[str, Any], facts: Facts, *, verified: Verified | None = None, unsigned: bool = False) -> str:
    """The page of a report predicate that is verified or about to be signed, and of its evidence.

    verified: a verifier's result, for the verifier's own copy.
    unsigned: mark the page as having no signature and no report in the folder.
    """
    fixed = words if facts.seal.base_weights_digest else EARLIER
    first = summary.view(report, fixed.STRICT)
    return _template().render(
        r=report,
        c=report["certificate"],
        f=facts,
        w=fixed,
        evidence=[item for item in report["evidence"] if item["name"] != "report.html"],
        verified=verified,
        unsigned=unsigned,
        fewest=curves.FEWEST,
        **first,
        **appendix.view(report, facts, first["subject"], fixed.STRICT),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (up, down, measured, percent, short, params, small, four, cut, whole, capitalised, numbers.count)
    environment.filters |= {filter_.__name__: filter_ for filter_ in filters}
    return environment.get_template("page.html.jinja")
