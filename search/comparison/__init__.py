"""`froc compare`: `terms` of a comparison and what is compared, `mixing` with the base model, `run` does it."""
