"""EVIDENCE: what is claimed about a run, by whom, and whether it holds. Imports `froc` alone; no torch, and no network but to ask for a time stamp.

    signing       keys, DSSE envelopes, in-toto statements, strict JSON
    trust         whom a verifier trusts, in which role and for how long, and how many must have signed
    timestamps    when a signature existed at the latest, by an authority's word
    statements    in-toto statements that enough keys have signed
    model_folder  the files of a model folder, and whether it is closed
    model_hub     a model's files from a hub, in the place of a folder
    bound_weights  losses, weights and files are about one model
    records       the files of a bundle: written one way, read one way
    documents     plan, seal, comparison and report, as far as a claim depends on them
    claims        evidence -> everything in a report that follows from it; builder and verifier run the same code
    rendering     report and evidence -> one static page
    chronology    dates against each other and against time stamps
    ranking       the sealed order and weights against the log of trials
    facts         the files of a bundle against each other
    comparisons   a comparison of methods inside a bundle
    verification  numbered checks over a bundle, by someone who trusts only keys
    levels        what stands behind a report that verifies
    reexecution   losses measured again: the draw, the counts, the bound that follows
    evidence      run folder -> signed bundle
    plan_signing  a plan signed and stamped before the first trial
    countersigning  what is put into a bundle after its report was signed
    writing       how its files are written
    exports       verified bundle -> what other tools read, one file per format

A bundle is a plain folder `NAME.froc-audit`: plan.json, plan.dsse.json, seal.json, trials.jsonl, losses.csv,
report.html, report.dsse.json. Nothing in it lets anyone read a forgotten row, and nothing outside it but the model
and the public keys is needed to check it.
"""
