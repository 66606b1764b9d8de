"""The fixed words of pages whose reports sealed no weights, unchanged so that they still verify.

A report that seals its weights always has today's words, so nobody can choose these for it.
"""

from dataclasses import replace
from types import SimpleNamespace

from froc.audit.rendering import words

_VERIFY = {
    "dates": "issued, not expired, not older than the sequence asked for",
    "trials": "no trial is missing, repeated or of another plan",
    "losses": "every candidate on every sealed query, once",
    "comparison": "a signed comparison is about the same base model and task, and complete",
}
_LEGAL = {
    "logged trials": ("C, D, E: method, criteria and the date of the plan that fixed them, logged trials.",
                      "C, D, E: method, criteria fixed before, every trial."),
    "criteria": ("D: criteria with the date of their plan, and deviations. E: every logged trial.",
                 "D: criteria that were fixed before the run, and deviations. E: every started trial."),
    "budget": ("against the budget of the plan.", "against a budget set beforehand."),
}  # fmt: skip


def _legal(entry: words.Mapped) -> words.Mapped:
    serves = entry.serves
    for today, earlier in _LEGAL.values():
        serves = serves.replace(today, earlier)
    return replace(entry, serves=serves)


EARLIER = SimpleNamespace(
    **{name: value for name, value in vars(words).items() if name.isupper()}
    | {
        "VERIFY": tuple((name, _VERIFY.get(name, text)) for name, text in words.VERIFY),
        "LEGAL": tuple(map(_legal, words.LEGAL)),
        "GLOSSARY": words.GLOSSARY | {"Budget": "the risk that the organisation accepts, fixed before the run."},
        "THREATS": tuple(threat for threat in words.THREATS if threat[0] not in ("The log", "The procedure")),
        "TRIALS": "Every started trial, failures included.",
        "COUNTED": False,
        "STRICT": False,
    }
)
