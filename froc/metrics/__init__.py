"""Metrics, one file each: a score in [0, 1] per query.

Two kinds. Most measure *knowledge*: on forget queries the score itself is the loss (1.0: the forgotten answer is there), on
retain queries its drop against the base model is. Others find *faults* (refusal, gibberish): there the score is the loss on
any queries. Metrics read what was `Observation` once per query; none runs the model.

The contract is `froc.measuring.metric.Metric`.
"""
