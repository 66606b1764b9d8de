"""Named risks: which queries, under which attacks, judged by which metric. Torch-free until one is made.

A measurement is written `METRIC[:KEY=VALUE,...][@ATTACK[:KEY=VALUE,...][+ATTACK...]][/POOL]`::

    extraction_strength                                        forget queries, as they are
    extraction_strength/utility                                retain queries: the drop against the base model
    extraction_strength/wordings                               other wordings of what is forgotten (a file wordings)
    extraction_strength/earlier                                queries about what earlier requests removed (--after)
    rouge_l@prefix_injection+role_play                         the worse of two attacks, for each query
    extraction_strength@relearning:steps=30,lr=0.001
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc import hashing
from froc.data.splits import Source
from froc.data.task import EARLIER, FORGETTING, UTILITY, WORDINGS, request_of
from froc.errors import InputError
from froc.measuring import measurement_text
from froc.measuring.metric import Metric
from froc.measuring.named_risks import KNOWN
from froc.plugins import make, name_of
from froc.plugins import parse as settings

if TYPE_CHECKING:
    from froc.measuring.attack import Attack

POOL_NAMES = {
    FORGETTING: FORGETTING,
    UTILITY: UTILITY,
    EARLIER: EARLIER,
    WORDINGS: WORDINGS,
    "forget": FORGETTING,
    "retain": UTILITY,
}
"""What queries are called at the end of a measurement."""


@dataclass(frozen=True)
class Measurement:
    """How a risk is measured: which queries (`pool`), by which metric, under which attacks."""

    pool: str
    metric: Metric
    attacks: tuple["Attack", ...] = ()

    @property
    def drop(self) -> bool:
        """Whether the loss is the drop against the base model; otherwise it is the score."""
        return self.pool == UTILITY and self.metric.finds == "knowledge"

    @property
    def source(self) -> Source:
        """The queries that the risk is measured on."""
        return Source(self.pool, any(attack.holds for attack in self.attacks))

    @property
    def plain(self) -> bool:
        """Whether a single pass over the unchanged model suffices."""
        return not self.attacks and not self.metric.bank

    @property
    def binary(self) -> bool:
        """Whether losses can only be 0 or 1."""
        return self.metric.binary

    def __str__(self) -> str:
        """The measurement as text; default settings are left out."""
        attacks = "+".join(map(_written, self.attacks))
        pool = "" if self.pool == FORGETTING else f"/{self.pool}"
        return f"{_written(self.metric)}{'@' if attacks else ''}{attacks}{pool}"


def written(risk: str, risk_measurement: Measurement) -> str:
    """The text in plans and loss tables, where utility omits its pool."""
    text = str(risk_measurement)
    measurement_text.check(text)
    return text.removesuffix(f"/{UTILITY}") if risk == UTILITY else text


def plain(metrics: Mapping[str, Metric]) -> dict[str, Measurement]:
    """Each pool's queries as they are."""
    return {pool: Measurement(pool, metric) for pool, metric in metrics.items()}


def measurement(text: str) -> Measurement:
    """The measurement written as `text`; InputError for an unknown metric, attack, setting or pool."""
    return _measurement(text)


@lru_cache(maxsize=256)
def _measurement(text: str) -> Measurement:
    from froc.measuring.attack import Attack

    front, slash, pool = text.rpartition("/")
    known = pool in POOL_NAMES or request_of(pool) is not None
    if not known and "=" in text:
        # slashes may belong to a folder among the settings
        front, slash = "", ""
    if slash and not known:
        raise InputError(f"{text}: no queries are called {pool!r}; write /forgetting, /utility, /wordings or /earlier")
    front, pool = (front, POOL_NAMES.get(pool, pool)) if slash else (text, FORGETTING)
    metric, at, attacks = front.partition("@")
    if at and not attacks:
        raise InputError(f"{text}: no attack after @; write METRIC@ATTACK (froc list attacks)")
    made = tuple(_made(Attack, attack) for attack in attacks.split("+")) if attacks else ()
    scored = _made(Metric, metric)
    unseen = next((attack for attack in made if attack.shows_in and not attack.shows_in & set(scored.reads)), None)
    if unseen:
        raise InputError(
            f"{text}: {name_of(unseen)} acts on what is {' or '.join(sorted(unseen.shows_in))}, which {name_of(scored)} does not read; "
            "take a metric of written answers, such as rouge_l"
        )
    return Measurement(pool, scored, made)


def named(risks: Sequence[str], definitions: Mapping[str, str]) -> dict[str, Measurement]:
    """risk -> measurement, in the order of `risks`.

    definitions: risk -> the user's text, which takes precedence.

    Texts for forgetting, utility and earlier may omit the pool. InputError for a risk without a definition.
    """
    measurements = {}
    for risk in risks:
        text = definitions.get(risk, KNOWN[risk].of if risk in KNOWN else "")
        if request_of(risk) is not None:
            # measured like forgetting, unless defined otherwise
            alike = definitions.get(FORGETTING, KNOWN[FORGETTING].of).removesuffix(f"/{FORGETTING}")
            text = f"{definitions.get(risk, definitions.get(EARLIER, alike)).removesuffix(f'/{EARLIER}')}/{risk}"
        if not text:
            raise InputError(f"no risk is called {risk!r}; define it: --risk {risk}=METRIC@ATTACK (froc list risks)")
        if risk == UTILITY and "/" not in text:
            text += f"/{UTILITY}"
        measurements[risk] = measurement(text)
    return measurements


def _made(base: Any, text: str) -> Any:
    name, params = settings(text)
    return make(base, name, params)


@lru_cache(maxsize=64)
def _fingerprint(value: str) -> str:
    """A model folder as its name and content digest: plans state which model judged, not where it is."""
    folder = Path(value)
    if not folder.is_dir():
        return value
    # a plan holds plain words
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.resolve().name)[:80]
    return f"{name}#{hashing.sha256_tree(hashing.sha256_files(folder))[:12]}"


def _written(plugin: Any) -> str:
    name = name_of(plugin)
    values = {f.name: getattr(plugin, f.name) for f in fields(plugin) if getattr(plugin, f.name) != f.default}
    parts = [f"{key}={_fingerprint(value) if isinstance(value, str) else value}" for key, value in values.items()]
    return f"{name}:{','.join(parts)}" if parts else name
