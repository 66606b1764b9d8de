"""The fixed words of the page, none of which a signer chooses."""

from dataclasses import dataclass

from froc.data.task import EARLIER

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
    "tokenizer-from-the-data": "The model's tokenizer was made from the data, or holds texts of them: pieces of what was forgotten may be read in its files.",
    "no-model-covered": "No model is covered: there is nothing here that could be deployed.",
}
DECISIONS = {"PASS": "Pass", "FAIL": "Fail", "NOT_ESTABLISHED": "Not established"}
PLANS = {
    "signed-before-first-trial": "signed; its date is before the first trial",
    "asserted-signed-after-run": "asserted, signed after the run",
}
ASSURANCE = {"self_attested": "self-attested: the party that ran the search measured the losses and signed this report"}
MEANINGS = {
    "forgetting": "how much of the forgotten answers can still be had",
    "utility": "how much of the retained behaviour was lost",
    "combined": "the weighted sum of the other risks",
    EARLIER: "how much of what was removed before can be had again",
}
ANSWERS = frozenset({
    "entailment", "exact_memorization", "extraction_strength", "knowledge", "probability", "rouge_l", "rouge_l_f1", "token_f1", "verbatim",
})  # fmt: skip
"""Metrics of how much of an answer can be had."""
BEHAVIOUR = ANSWERS | {"multiple_choice", "negative_flips", "probability_options", "truth_ratio"}
"""Metrics whose drop is lost behaviour."""
STRICT = True
"""Whether what is said of a risk depends on how it was measured, and of a procedure on what it controls; else on names alone."""
POPULATIONS = {
    "queries": "unseen queries drawn like the measured ones",
    "sample": "the listed queries, of which a random part was measured",
    "census": "exactly the listed queries, all of them measured",
}
METRICS = {"rouge_l": "ROUGE-L", "rouge_l_f1": "ROUGE-L F1", "token_f1": "token F1"}
UNITS = {"query": "queries", "group": "groups of queries", "queries-by-group": "groups of queries"}
STATUS = {
    "complete": "complete", "pruned": "stopped early", "failed": "failed", "diverged": "failed: diverged",
    "out-of-memory": "failed: out of memory", "timed-out": "failed: out of time", "interrupted": "interrupted",
}  # fmt: skip
ABOVE = (
    "A bound above its budget does not contradict the certificate: bounds hold for every tested configuration at once, which asks for more "
    "than the test by which this one was certified."
)
TRIALS = "Every logged trial, failures included."
COUNTED = True
"""Whether the table of data says how its counts are known."""
VERIFY = (
    ("files", "the bundle holds its files, each plain and of bounded size, and no other"),
    ("timestamps", "time stamps are over these signatures, by an authority that the verifier pinned"),
    ("signature", "enough trusted keys signed the exact bytes of the report"),
    ("statement", "it is a report of this kind, in strict JSON; each role has signed that must have"),
    ("dates", "issued, not expired, not older than the sequence asked for; no date contradicts another"),
    ("evidence", "every file has the digest and size that were signed"),
    ("subject", "the model's files are named in plain paths with SHA-256, or no model is covered"),
    ("model", "the model folder holds exactly those files, where it is given"),
    ("plan", "signed by a trusted key, and the same in both of its forms"),
    ("seal", "made under this plan, of planned queries, with no more candidates than planned"),
    (
        "trials",
        "listed trials are numbered without a gap, none repeated or of a plan that is neither this one nor extended by it; no candidate stands before one that lost less under every risk in the search, where the log has every risk",
    ),
    (
        "losses",
        "every candidate on every sealed query, once; under a sequential plan, on the first units of the sealed order",
    ),
    ("comparison", "a signed comparison is about the same base model and rows, and complete"),
    ("statistics", "p-values, bounds, certified set, choice, verdict and limits follow from the evidence"),
    (
        "weights",
        "the model's weights and the files beside them are those that were sealed before calibration was opened, and not what the plan "
        "calls the base model's",
    ),
    ("page", "this page shows what was signed"),
    ("reexecution", "rows measured again are those that the seed draws"),
)
"""What `froc audit verify` goes through, by the names of its steps; `weights` is left out where none were sealed."""


@dataclass(frozen=True)
class Mapped:
    """A rule: what it asks in our words, which parts of the report serve it, and what they do not show."""

    rule: str
    asks: str
    serves: str
    lacks: str


LEGAL = (
    Mapped(
        "GDPR Art. 17 (right to erasure)",
        "Personal data are erased without undue delay where a ground applies.",
        "Page 1 and F: what the model still gives away on the tested queries, against the budget of the plan. A names the one "
        "model that this is about.",
        "Erasure itself, and anonymity. Source data, backups, logs, copies and derived models. Whether a budget above 0 is "
        "acceptable, whether a ground applies, who was told (Art. 19) and by when (Art. 12(3)).",
    ),
    Mapped(
        "GDPR Art. 5(2) and 35 (accountability, impact assessment)",
        "The controller can show what was done; risks and measures are described.",
        "C, D, E: method, criteria and the date of the plan that fixed them, logged trials. J: residual risks. H: attacks that were tried, and those that were not.",
        "Necessity, proportionality and the interests of the people concerned.",
    ),
    Mapped(
        "EU AI Act Annex IV, points 1 and 2 (technical documentation)",
        "Versions and software; test procedures, test data and metrics; test logs and reports, dated and signed by the responsible "
        "persons.",
        "A and I: identity and versions. B, C: data and metrics. E: the log. K and the signatures: dated, by function and key.",
        "The rest of Annex IV. That the signers are the responsible persons is for the organisation to say. Dates are the signer's "
        "unless a time stamp is verified.",
    ),
    Mapped(
        "EU AI Act Art. 12 (record-keeping)",
        "Events are logged automatically over the system's lifetime.",
        "Not satisfied by this report: E logs the making of one model.",
        "Any logging while the system is in use.",
    ),
    Mapped(
        "EU AI Act Art. 15 (accuracy, robustness, cybersecurity)",
        "Levels of accuracy and their metrics are declared; the system withstands errors and attacks.",
        "G: utility against the base model. F: bounds under a shift of the queries. H: attacks that were run.",
        "Accuracy on the system's own task beyond the retained queries; cybersecurity of the system around the model.",
    ),
    Mapped(
        "NIST AI RMF 1.0: MEASURE 2.1, 2.10, 2.13",
        "Test sets, metrics and tools are documented; privacy risk is examined; the measurements' own effectiveness is evaluated.",
        "B, C and I document the test. Forgetting and the attacks of H examine privacy. F and J say how far the numbers carry.",
        "MAP, MANAGE and GOVERN; a comparison with other measurements than those named.",
    ),
    Mapped(
        "ISO/IEC 42001 Annex A: A.6.2.4, A.6.2.8",
        "Verification and validation, with criteria for their use; event logs.",
        "D: criteria with the date of their plan, and deviations. E: every logged trial.",
        "A management system. Conformity with the standard.",
    ),
)
GLOSSARY = {
    "Base model": "the model before anything was removed from it here.",
    "Bound (CUR)": "conformal unlearning risk: the risk is at most this, with the stated confidence.",
    "Budget": "the risk that the organisation accepts, fixed in the plan.",
    "Calibration queries": "a random part of the queries that the search never saw, opened once the candidates were sealed.",
    "Certified": "shown to keep every budget; with the stated confidence, no certified configuration exceeds any.",
    "Confidence": "how often such a statement is right, over the random draw of calibration queries.",
    "Configuration": "an unlearning method with all its settings and a training seed.",
    "Fingerprint": "the first digits of a SHA-256 digest: other contents have another.",
    "Hellinger distance": "how far two distributions of queries are apart: 0 the same, 1 without overlap.",
    "Loss": "a number from 0 (good) to 1 (the worst) for one query; kept in whole thousandths, rounded up.",
    "p-value": "losses this low would be at most this likely, were the risk above its budget.",
    "Risk": "the mean loss over all queries that the claim is about, measured or not.",
    "Robust radius": "the largest Hellinger distance at which the bound is still within budget.",
    "Seal": "the list of candidates in testing order, written down before calibration queries are opened.",
    "Search queries": "the other part of the queries, which the search looks at as often as it likes.",
    "Trial": "one training run with one configuration, finished or not.",
    "Unlearning": "changing a model so that it no longer gives away certain data, without training it anew.",
}
THREATS = (
    ("The measure", "A loss says what one way of asking brings to light. A model can still hold what no measured query brings out."),
    ("The sample", "Bounds hold for queries drawn like the measured ones. Users who ask otherwise are covered within the robust radius alone."),
    ("The draw", "The division of queries is a keyed hash under a seed. Who chose seed and task together could have tried several."),
    ("The count", "Looking again at the same calibration queries spends confidence. Openings are counted by the signer's own machine."),
    ("The log", "Trials are those that the signer's log lists. One that was taken out, and the others numbered anew, would not be missed; settings and search losses are the signer's word."),
    ("The procedure", "How queries were divided, what training read and when calibration queries were opened is what froc does; that it was done so in this run is the signer's word."),
    ("The word", "Losses are the signer's word until somebody measures a random sample again (froc audit reexecute)."),
    ("The clock", "What came before what rests on the signer's clock."),
    ("The artefact", "Further training, merging, quantising or another prompt template makes another model, about which nothing is shown."),
    ("The arithmetic", "Other devices and versions come to slightly other losses; I names those that were used."),
)  # fmt: skip
