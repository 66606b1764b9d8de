"""EVIDENCE: what is claimed about a run, by whom, and whether it holds. Imports `froc` alone; no torch, no network.

    signing       keys, DSSE envelopes, in-toto statements, strict JSON
    trust         whom a verifier trusts, in which role, and how many must have signed
    records       the files of a bundle and of a model folder: written one way, read one way
    claims        evidence -> everything in a report that follows from it; builder and verifier run the same code
    rendering     report and evidence -> one static page
    verification  numbered checks over a bundle, by someone who trusts only keys
    reexecution   losses measured again: the draw, the counts, the bound that follows
    evidence      run folder -> signed bundle
    exports       verified bundle -> what other tools read, one file per format

A bundle is a plain folder `NAME.froc-audit`: plan.json, plan.dsse.json, seal.json, trials.jsonl, losses.csv,
report.html, report.dsse.json. Nothing in it lets anyone read a forgotten row, and nothing outside it but the model
and the public keys is needed to check it.
"""
