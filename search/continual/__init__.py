"""Chains of runs: `predecessor` reads the run that `--after` names, `chain` holds the run whose model is the base, `sustainability` how removals accumulate."""
