"""The form in which plans write a measurement, and its parts. Torch-free: whoever verifies imports no attack.

    NAME[:KEY=VALUE,...][@NAME[:KEY=VALUE,...][+NAME...]][/POOL]

Names and keys are those of plug-ins, values numbers, words, or a folder's name with a digest of its contents; nothing in it is
free text, since reports show it beside what was verified.
"""

import re
from dataclasses import dataclass

from froc.data.task import EARLIER, UTILITY, WORDINGS
from froc.errors import InputError
from froc.plugin_source import settings

_NAME = r"[a-z][a-z0-9_]{0,63}"
_NUMBER = r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e-?[0-9]{1,3})?"
_WORD = r"[A-Za-z][A-Za-z0-9_]{0,31}"
_FOLDER = r"[A-Za-z0-9_.-]{1,80}#[0-9a-f]{12}"
_SETTING = rf"{_NAME}=({_NUMBER}|{_WORD}|{_FOLDER})"
_PLUGIN = rf"{_NAME}(:{_SETTING}(,{_SETTING}){{0,15}})?"
_POOL = rf"({UTILITY}|{WORDINGS}|{EARLIER}(-[0-9]{{1,6}})?)"
PATTERN = rf"^{_PLUGIN}(@{_PLUGIN}(\+{_PLUGIN}){{0,15}})?(/{_POOL})?$"
"""Of a measurement; queries of what is to be forgotten go without saying."""
GROUPS = {"metric": "froc.metrics", "attack": "froc.attacks"}
"""Kind of a part -> the folder of froc's own."""


@dataclass(frozen=True)
class Part:
    """The metric or an attack of a measurement. settings: their keys."""

    kind: str
    name: str
    settings: tuple[str, ...] = ()


def pool(text: str) -> str:
    """Which queries, as it is written; empty for what is to be forgotten."""
    match = re.search(rf"/{_POOL}$", text)
    return match[1] if match else ""


def parts(text: str) -> list[Part]:
    """The metric of a measurement, then its attacks; every part counts, whether anybody knows its name or not."""
    metric, _, attacks = text.removesuffix(f"/{pool(text)}").partition("@")
    # settings hold numbers such as 1e+3, and a name begins with a letter
    named = re.split(r"\+(?![0-9])", attacks) if attacks else []
    return [_part("metric", metric), *(_part("attack", attack) for attack in named)]


def _part(kind: str, text: str) -> Part:
    name, _, rest = text.partition(":")
    return Part(kind, name, tuple(setting.partition("=")[0] for setting in rest.split(",") if setting))


def check(text: str) -> None:
    """InputError where a measurement is not written as froc writes it, or sets what a plug-in of froc's does not have."""
    if not re.fullmatch(PATTERN, text, re.ASCII):
        raise InputError(
            f"{text[:200]!r} is no measurement as plans write it: METRIC:KEY=VALUE@ATTACK/POOL, of plain words and numbers"
        )
    for part in parts(text):
        known = settings(GROUPS[part.kind], part.name)
        strange = [key for key in part.settings if known is not None and key not in known]
        if strange:
            raise InputError(f"the {part.kind} {part.name} has no setting {strange[0]!r}")
