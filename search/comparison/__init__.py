"""`froc compare`: `terms` of a comparison, `runs` that can be compared, `mixing` with the base model, and `run`, which does it."""
