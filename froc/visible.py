"""Untrusted text made safe to display: in a terminal, on a page, in an export, in a log. Standard library only.

A fixed Unicode version decides which characters are shown unchanged, so that output does not depend on the version of
Python.
"""

import re
from unicodedata import ucd_3_2_0

PICTOGRAPHS = range(0x1F300, 0x1FB00)
"""Emoji, most of which are newer than the Unicode version that is used."""
_PLAIN = re.compile(r"[\w.@/+:=,()*%~^<>{}\[\]#&|;!?$'`-]+")


def visible(text: str) -> str:
    """Text in which characters that hide, reorder, control a terminal or stack on others are written as code points."""
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for sign in text:
        kind = ucd_3_2_0.category(sign)
        # one combining mark is an accent; many cover neighbouring lines
        marks = marks + 1 if kind[0] == "M" else 0
        plain = sign == " " or kind[0] in "LNPS" or (kind == "Mn" and marks == 1) or ord(sign) in PICTOGRAPHS
        shown.append(sign if plain else f"\\u{ord(sign):04x}")
    return "".join(shown)


def name(text: str) -> str:
    """An untrusted name, visible; in quotes where it could be read as more than a name: `"a certified"`."""
    shown = visible(text)
    return shown if _PLAIN.fullmatch(shown) else '"' + shown.replace('"', '\\"') + '"'


def marked(text: str) -> str:
    """Visible text for a rich console, with brackets escaped."""
    from rich.markup import escape

    # a backslash before a bracket would escape it
    return escape(re.sub(r"\\+(?=\[|$)", lambda last: "\\u005c" * len(last[0]), visible(text)))
