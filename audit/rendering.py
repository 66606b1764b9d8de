"""Signed report -> one static page: no script, no link out, nothing loaded, the same bytes everywhere.

The page is a pure function of the report, so it cannot say that it was verified; it says how to verify it. Words are
fixed here: a signer chooses none of them. The list of evidence is shown without the page itself.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from froc import comparison
from froc.data import EARLIER, request_of
from froc.presets import KNOWN

LIMITS = {
    "not-erasure": "It does not prove that the forgotten data had no influence on the model. It bounds what was measured.",
    "not-anonymity": "It does not show that the model is anonymous in the sense of data protection law.",
    "self-reported-losses": "That these losses were measured on these weights is the signer's word; only measuring again shows it.",
    "tested-population-only": "It holds for the queries that the claim names, and no others; other prompts, languages and attacks "
    "were not tested.",
    "one-artefact-only": "It covers the files that it lists: no copy, backup, fine-tuned or quantised version of them.",
    "dates-are-the-signers-word": "Dates are the signer's word; time stamps by an independent clock count for those who check them.",
    "openings-are-the-signers-count": "How often the calibration queries were looked at is counted by the signer.",
    "plan-signed-after-run": "The plan was signed after the run: that it was fixed before is asserted, not shown.",
    "unplanned-opening": "The calibration queries had been looked at before, unplanned: the confidence is lower than stated.",
    "earlier-not-measured": "Earlier removals were not measured: what was removed from the model before may have come back.",
    "small-sample": "Under some risk so few queries or groups were measured that these numbers may tell about single ones.",
    "no-model-covered": "No model is covered: there is nothing here that could be deployed.",
}
DECISIONS = {"PASS": "Pass", "FAIL": "Fail", "NOT_ESTABLISHED": "Not established"}
PLANS = {
    "signed-before-first-trial": "signed; its date is before the first trial",
    "asserted-signed-after-run": "asserted, signed after the run",
}
ASSURANCE = {"self_attested": "self-attested: the party that ran the search measured the losses and signed this report"}
FEW = 3
"""Risks that the claim names one by one; more are said to be those of the table."""
MEANINGS = {
    "forgetting": "how much of the forgotten answers can still be had",
    "utility": "how much of the retained behaviour was lost",
    "combined": "the weighted sum of the other risks",
    EARLIER: "how much of what was removed before can be had again",
}
POPULATIONS = {
    "queries": "unseen queries drawn like the measured ones",
    "sample": "the listed queries, of which a random part was measured",
    "census": "exactly the listed queries, all of them measured",
}
METRICS = {"rouge_l": "ROUGE-L", "rouge_l_f1": "ROUGE-L F1", "token_f1": "token F1"}
UNITS = {"query": "queries", "group": "groups of queries"}
CUT = Decimal("0.01")


def html(report: Mapping[str, Any]) -> str:
    """The page of a report predicate that was verified, or is about to be signed."""
    certificate = report["certificate"]
    rows = {row["config"]: row for row in certificate["candidates"]}
    subject = rows.get(report["config"])
    return _template().render(
        r=report,
        c=certificate,
        subject=subject,
        risks=[_risk(report, certificate, subject, risk) for risk in ordered(certificate["budget"])] if subject else [],
        decision=DECISIONS[report["verdict"]],
        sentence=_sentence(report, subject),
        claim=_claim(report, certificate),
        chart=_chart(report, certificate, subject) if subject else None,
        limits=[LIMITS[name] for name in report["limits"]],
        plan=PLANS[report["plan"]["status"]],
        assurance=ASSURANCE[report["assuranceLevel"]],
        evidence=[item for item in report["evidence"] if item["name"] != "report.html"],
        compared=_compared(report.get("comparison")),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "up": up,
        "down": down,
        "measured": measured,
        "percent": percent,
        "short": short,
        "params": params,
        "small": small,
        "four": _four,
    }
    return environment.get_template("report.html.jinja")


def visible(value: Any) -> Any:
    """Text with every character that could hide or reorder others written as its code point."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        sign if sign == " " or (sign.isprintable() and not sign.isspace()) else f"\\u{ord(sign):04x}" for sign in value
    )


def up(value: str) -> str:
    """A bound as a percentage, rounded up: never smaller than it is."""
    return f"{(Decimal(value) * 100).quantize(CUT, ROUND_CEILING)}%"


def down(value: str) -> str:
    """A lower bound as a percentage, rounded down."""
    return f"{(Decimal(value) * 100).quantize(CUT, ROUND_FLOOR)}%"


def measured(value: str) -> str:
    """A measured mean as a percentage."""
    return f"{(Decimal(value) * 100).quantize(CUT, ROUND_HALF_EVEN)}%"


def percent(value: str) -> str:
    """A number that somebody chose, as a percentage, in full."""
    return f"{(Decimal(value) * 100).normalize():f}%"


def small(value: str) -> str:
    """A p-value, rounded up to two digits."""
    number = Decimal(value)
    if number >= CUT / 10:
        return f"{number.quantize(CUT / 10, ROUND_CEILING)}"
    return f"{number.quantize(Decimal(1).scaleb(number.adjusted() - 1), ROUND_CEILING):.1e}" if number else "0"


def short(value: str) -> str:
    """The first 16 digits of a fingerprint in groups of four."""
    return " ".join(value[i : i + 4] for i in range(0, 16, 4))


def params(value: Mapping[str, Any]) -> str:
    """Hyperparameters on one line, decimal numbers to four digits; the sealed list has them in full."""
    return ", ".join(f"{name} {_four(value[name])}" for name in sorted(value))


def _four(value: Any) -> str:
    try:
        return f"{float(value):.4g}" if isinstance(value, str) else str(value)
    except ValueError:
        return str(value)


def _risk(
    report: Mapping[str, Any], certificate: Mapping[str, Any], row: Mapping[str, Any], risk: str
) -> dict[str, Any]:
    combined = risk not in certificate["unit"]
    metric = "weighted sum" if combined else report["method"]["metric"][risk]
    bound, budget = row["cur"][risk]["simultaneous"], certificate["budget"][risk]
    return {
        "name": risk,
        "meaning": _meaning(risk, metric),
        "metric": _measured_by(metric),
        "n": "" if combined else row["n"][risk],
        "unit": _weights(certificate) if combined else UNITS[certificate["unit"][risk]],
        "by": "its parts" if combined else certificate["bound"][risk].replace("_", " "),
        "measured": row["empirical"][risk],
        "bound": bound,
        "budget": budget,
        "within": row["certified"] or Decimal(bound) <= Decimal(budget),
        "strict": row["certified"] and Decimal(bound) > Decimal(budget),
        "radius": row["robust_radius"][risk],
        "p": small(row["p_values"][risk]),
    }


def ordered(budget: Mapping[str, Any]) -> list[str]:
    """Forgetting and utility first, the others by name."""
    first = [risk for risk in ("forgetting", "utility") if risk in budget]
    return [*first, *sorted(risk for risk in budget if risk not in first)]


def _meaning(risk: str, metric: str) -> str:
    """What a risk says: in fixed words for those that are measured as froc defines them, else by its name alone."""
    known = KNOWN.get(risk)
    if request_of(risk):
        return f"how much of what request {request_of(risk)} removed can be had again"
    if risk in MEANINGS:
        return MEANINGS[risk]
    return known.says if known is not None and known.of == metric else "the risk of that name"


def _measured_by(metric: str) -> str:
    """A measurement in words: what is measured, on which queries, under the worst of which attacks."""
    pool = metric.rpartition("/")[2]
    removed = request_of(pool)
    front, _, attacks = (
        (metric if removed is None else metric.rpartition("/")[0]).removesuffix("/utility").partition("@")
    )
    words = _plugin(front) + (", on retain queries" if metric.endswith("/utility") and attacks else "")
    words += "" if removed is None else f", on queries of {'earlier requests' if not removed else f'request {removed}'}"
    many = [_plugin(attack) for attack in attacks.split("+")] if attacks else []
    return words + (f", {'worst of: ' if len(many) > 1 else 'under '}{', '.join(many)}" if many else "")


def _plugin(text: str) -> str:
    name, _, settings = text.partition(":")
    return METRICS.get(name, name.replace("_", " ")) + (f" ({settings.replace(',', ', ')})" if settings else "")


def _sentence(report: Mapping[str, Any], row: Mapping[str, Any] | None) -> str:
    confidence = percent(report["certificate"]["confidence"])
    opening = report["certificate"]["opening"]
    if row is None:
        return "No configuration came near the budget during the search, so none was tested."
    named = f"configuration {row['config']} ({row['method']})"
    if report["verdict"] == "PASS":
        sure = (
            f"with {confidence} confidence" if opening["number"] <= opening["planned"] else f"({opening['statement']})"
        )
        return f"The chosen {named} keeps every risk within its budget, {sure}."
    if report["verdict"] == "FAIL":
        return f"A risk of {named}, as measured, is above its budget."
    return f"The risks of {named}, as measured, are within budget, but not surely enough for {confidence} confidence."


def _claim(report: Mapping[str, Any], certificate: Mapping[str, Any]) -> str:
    budget = certificate["budget"]
    limits = " and ".join(
        f"the {risk} risk ({MEANINGS.get(risk, 'as measured')}) is at most {percent(budget[risk])}"
        for risk in ordered(budget)
    )
    if len(budget) > FEW:
        alike = {alpha: [risk for risk in ordered(budget) if budget[risk] == alpha] for alpha in budget.values()}
        limits = "; ".join(f"{', '.join(risks)}: at most {percent(alpha)}" for alpha, risks in alike.items())
    sure = (
        f"With {percent(certificate['confidence'])} confidence, every certified configuration keeps all of this at once"
    )
    opening = certificate["opening"]["statement"]
    shift = certificate["radius"]
    if Decimal(shift):
        sure += f" and on every distribution of queries within a Hellinger distance of {shift}"
    return f"{sure}: {limits}. {_population(certificate)} {opening.capitalize()}.{_early(certificate)}"


def _compared(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A comparison's tables: per stage a line for each method, the least left first, and what its pairs say."""
    if found is None:
        return None
    stages = [
        {
            "name": _stage(stage),
            "tied": found["ranking"][stage]["tied"],
            "rows": [{"method": m, **found["stages"][stage][m]} for m in found["ranking"][stage]["methods"]],
            "pairs": _pairs(found["pairs"][stage], found["ranking"][stage]["methods"]),
        }
        for stage in comparison.ordered(found["ranking"])
    ]
    region = [{"method": method, "at": some["at"]} for method, some in found["region"].items()]
    return {"stages": stages, "region": region, "budgets": list(region[0]["at"]), "c": found}


def _stage(stage: str) -> str:
    return "as trained, before mixing" if stage == "before" else f"at {percent(stage)} retained performance"


def _pairs(pairs: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[str]:
    """A phrase for each method that leaves less than others, the best first, then the ties."""
    less = {
        method: [p["other"] if p["one"] == method else p["one"] for p in pairs if p["verdict"] == method]
        for method in order
    }
    ties = [f"{p['one']} and {p['other']}" for p in pairs if p["verdict"] == "tie"]
    said = [f"{m} leaves less than {', '.join(o for o in order if o in less[m])}" for m in order if less[m]]
    return [*said, *([f"ties: {', '.join(ties)}"] if ties else [])]


def _population(certificate: Mapping[str, Any]) -> str:
    kinds = certificate["population"]
    if len(set(kinds.values())) == 1:
        return f"This is about {POPULATIONS[next(iter(kinds.values()))]}."
    said = "; ".join(f"{risk}: {POPULATIONS[kind]}" for risk, kind in kinds.items())
    return f"What this is about differs. {said[:1].upper()}{said[1:]}."


def _early(certificate: Mapping[str, Any]) -> str:
    spent = certificate["sequential"]
    if spent is None or spent["saved"] == 0:
        return ""
    return f" Measuring stopped early, by a rule that keeps the confidence: {spent['measured']} of {spent['planned']} units."


def _weights(certificate: Mapping[str, Any]) -> str:
    return " + ".join(f"{weight} {risk}" for risk, weight in certificate["weights"].items())


def _chart(report: Mapping[str, Any], certificate: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Places of the picture, in whole tenths of a unit so that no machine rounds otherwise."""
    budget = {risk: Decimal(certificate["budget"][risk]) for risk in ordered(certificate["budget"])}
    bounds = {risk: Decimal(row["cur"][risk]["simultaneous"]) for risk in budget}
    top = min(Decimal(1), max([*budget.values(), *bounds.values()]) * Decimal("1.2"))
    step = next(s for s in map(Decimal, ("0.01", "0.02", "0.05", "0.1", "0.2", "0.25")) if top / s <= 6)

    def place(value: Decimal) -> str:
        return str((150 + value / top * 520).quantize(Decimal("0.1"), ROUND_FLOOR))

    return {
        "ticks": [{"x": place(step * i), "label": percent(str(step * i))} for i in range(int(top / step) + 1)],
        "rows": [
            {
                "risk": risk, "y": 62 * i, "zero": place(Decimal(0)), "end": place(top),
                "mean": place(Decimal(row["empirical"][risk])), "bound": place(bounds[risk]), "budget": place(budget[risk]),
                "width": str(Decimal(place(budget[risk])) - Decimal(place(Decimal(0)))),
                "within": row["certified"] or bounds[risk] <= budget[risk],
            }
            for i, risk in enumerate(budget)
        ],
        "height": 62 * len(budget) + 34,
    }  # fmt: skip
