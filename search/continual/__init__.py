"""Chains of runs: `chain` is the run whose model is the base, `sustainability` how removals add up."""
