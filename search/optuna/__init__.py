"""Optuna: `study` asks and tells, `space` and `learning_rates` say what is drawn, `pruning` stops trials, `shared_study` is for several drivers."""
