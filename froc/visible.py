"""Text from files of others as people may see it: in a terminal, on a page, in an export, in a log. Torch-free, stdlib alone.

Which characters are shown as they are is decided by a fixed edition of Unicode, so that no version of Python writes
another page.
"""

import re
from unicodedata import ucd_3_2_0

PICTOGRAPHS = range(0x1F300, 0x1FB00)
"""Emoji: most are younger than the edition of Unicode that is asked."""
_PLAIN = re.compile(r"[\w.@/+:=,()*%~^<>{}\[\]#&|;!?$'`-]+")


def visible(text: str) -> str:
    """Text with every character that could hide, reorder, steer a terminal or pile up on others written as its code point."""
    shown, marks = [], 0
    for sign in text:
        kind = ucd_3_2_0.category(sign)
        # one accent is a letter's; a heap of them covers the lines around it
        marks = marks + 1 if kind[0] == "M" else 0
        plain = sign == " " or kind[0] in "LNPS" or (kind == "Mn" and marks == 1) or ord(sign) in PICTOGRAPHS
        shown.append(sign if plain else f"\\u{ord(sign):04x}")
    return "".join(shown)


def name(text: str) -> str:
    """A name that somebody else chose, visible; in quotes where it could be read as more than a name: `"a certified"`."""
    shown = visible(text)
    return shown if _PLAIN.fullmatch(shown) else '"' + shown.replace('"', '\\"') + '"'


def marked(text: str) -> str:
    """Visible text for a rich console, in which no bracket is taken for markup."""
    from rich.markup import escape

    # before a bracket, or markup that follows, a backslash would take its meaning from it
    return escape(re.sub(r"\\+(?=\[|$)", lambda last: "\\u005c" * len(last[0]), visible(text)))
