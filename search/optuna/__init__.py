"""Optuna: `study` asks and tells, `space`, `trainable_space` and `learning_rates` define what is drawn, `pruning` stops
trials, `shared_study` serves several drivers.
"""
