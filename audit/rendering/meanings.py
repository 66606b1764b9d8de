"""What is said of a risk: in fixed words where it is measured as froc defines it, else by its name alone."""

from froc.audit.rendering.words import ANSWERS, BEHAVIOUR, MEANINGS, METRICS
from froc.data.task import FORGETTING, UTILITY, request_of
from froc.measuring.measurement_text import pool
from froc.measuring.named_risks import COMBINED, KNOWN
from froc.risk.positive_control import metric_of

NAMELESS = "the risk of that name"
SUM = "weighted sum"
"""What stands for the measurement of the combined risk."""


def as_defined(risk: str, metric: str) -> bool:
    """Whether a risk with a name is measured by what froc means by it. metric: as plans write measurements."""
    if risk == COMBINED:
        return metric == SUM
    if risk not in (FORGETTING, UTILITY) and request_of(risk) is None:
        return risk in KNOWN and KNOWN[risk].of == metric
    # these are measured on their own queries as they are
    own = {FORGETTING: ("",), UTILITY: ("", UTILITY)}.get(risk, (risk,))
    return (
        metric_of(metric) in (BEHAVIOUR if risk == UTILITY else ANSWERS) and "@" not in metric and pool(metric) in own
    )


def meaning(risk: str, metric: str, strict: bool = True) -> str:
    """What a risk says. strict: False for pages on which a name alone decided."""
    always_named = request_of(risk) is not None or risk in MEANINGS
    if not as_defined(risk, metric) and (strict or not always_named):
        return NAMELESS
    if request_of(risk):
        return f"how much of what request {request_of(risk)} removed can be had again"
    return MEANINGS[risk] if risk in MEANINGS else KNOWN[risk].says


def measured_by(metric: str, strict: bool = True) -> str:
    """A measurement in words: what is measured, on which queries, under the worst of which attacks."""
    pool = metric.rpartition("/")[2]
    removed = request_of(pool)
    front, _, attacks = (
        (metric if removed is None else metric.rpartition("/")[0]).removesuffix("/utility").partition("@")
    )
    words = _plugin(front) + (", on retain queries" if metric.endswith("/utility") and (attacks or strict) else "")
    words += "" if removed is None else f", on queries of {'earlier requests' if not removed else f'request {removed}'}"
    many = [_plugin(attack) for attack in attacks.split("+")] if attacks else []
    return words + (f", {'worst of: ' if len(many) > 1 else 'under '}{', '.join(many)}" if many else "")


def _plugin(text: str) -> str:
    name, _, settings = text.partition(":")
    return METRICS.get(name, name.replace("_", " ")) + (f" ({settings.replace(',', ', ')})" if settings else "")
