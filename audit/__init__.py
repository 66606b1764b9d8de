"""Evidence: what is claimed about a run, by whom, and whether it holds. No torch; only time stamps and a model hub use the network.

    api                  `froc.report` and `froc.verify`
    keys  canonical_json  trust   signing keys and envelopes; JSON with one reading; whom a verifier trusts, in which role, how long
    timestamps  statements   latest time at which a signature was made; in-toto statements signed by enough keys
    bundle_files  plain_files  writing    the files of a bundle: written one way, read one way
    documents  report    plan, seal, comparison and report as far as a claim depends on them; evidence -> report, by the same
                         code for builder and verifier
    model_folder  expected_tensors  model_hub  bound_weights   a model's files and the tensors they must hold; models from a
                         hub; whether losses, weights and files belong to one model
    cross_checks  chronology  ranking  comparisons  further_stages  certificate_comparison   a bundle's files against each other, and against
                         what was signed
    verification  assurance  numbered checks that rely on public keys only; what supports a report that verifies
    reexecution  redraw  reexecution_statement   losses measured again: the signed statement; the draw, the counts, the resulting bounds
    bundle  plan_signing  countersigning   run folder -> signed bundle; signing the plan before the first trial; later additions
    rendering/  exports/     report -> one static page; verified bundle -> formats of other tools

A bundle is a plain folder `NAME.froc-audit`: plan.json, plan.dsse.json, seal.json, trials.jsonl, losses.csv,
report.html, report.dsse.json, and stages.json where the run was continued. No forgotten row can be read from it, and checking it needs only the model and the public
keys beside it.
"""

PASSWORD = "FROC_KEY_PASSWORD"
"""Environment variable with the password of an encrypted key; arguments would be visible in process lists."""
