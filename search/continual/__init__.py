"""Chains of runs: `chain` holds the run whose model is the base, `sustainability` how removals accumulate."""
