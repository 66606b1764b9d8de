"""Evidence: what is claimed about a run, by whom, and whether it holds. No torch, and no network but for time stamps.

    api                  `froc.report` and `froc.verify`
    keys  canonical_json  trust   signing keys and envelopes; JSON with one reading; whom a verifier trusts, in which role and for how long
    timestamps  statements   when a signature existed at the latest; in-toto statements that enough keys have signed
    bundle_files  plain_files  writing    the files of a bundle: written one way, read one way
    documents  report    plan, seal, comparison and report as far as a claim depends on them; evidence -> report, by the same code
                         for builder and verifier
    model_folder  expected_tensors  model_hub  bound_weights   the files of a model, and what they must hold; from a hub; losses, weights and files are about one model
    cross_checks  chronology  ranking  comparisons  certificate_comparison   the files of a bundle against each other, and against what was signed
    verification  assurance  numbered checks by someone who trusts only keys; what stands behind a report that verifies
    reexecution          losses measured again: the draw, the counts, the bound that follows
    bundle  plan_signing  countersigning   run folder -> signed bundle; a plan signed before the first trial; what is added later
    rendering/  exports/     report -> one static page; verified bundle -> what other tools read

A bundle is a plain folder `NAME.froc-audit`: plan.json, plan.dsse.json, seal.json, trials.jsonl, losses.csv,
report.html, report.dsse.json. Nothing in it lets anyone read a forgotten row, and nothing outside it but the model
and the public keys is needed to check it.
"""

PASSWORD = "FROC_KEY_PASSWORD"
"""Variable that opens an encrypted key: arguments stand in lists of processes."""
