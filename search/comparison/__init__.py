"""`froc compare`: `terms` of a comparison and what is compared, `runs` that can be, `mixing` with the base model, `run` does it."""
