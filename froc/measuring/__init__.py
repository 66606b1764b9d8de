"""Measuring a model on queries: observations, scores, per-query losses.

    metric  attack       the contracts of metrics and attacks (plug-ins are in `froc.metrics` and `froc.attacks`)
    named_risks          risks that have a name, profiles, budgets
    measurement          a risk as text (metric, attacks, queries) and as an object
    measurement_text     its form in plans, for whoever verifies
    model_observation  layer_patching   a model's behaviour on queries; hidden states of one model put into another
    query_losses  screening   an unlearned model -> per-query losses; refusing rows that a model cannot take
    memory_simulation    the memory that measuring a risk needs, counted beforehand
    agreement            whether teacher-forced scores agree with generated text
    placement  diagnostics    ranks among unseen rows; numbers that are shown and never certified

May import: models, data, loss_table.
"""
