"""Metrics, one file each: a score in [0, 1] per query.

There are two kinds. Most measure *knowledge*: on forget queries the score itself is the loss (1 means that the
forgotten answer is there); on retain queries the loss is its drop against the base model. Others find *faults*
(refusal, gibberish): the score is the loss on any queries. Metrics read an `Observation`, which is made once per query;
none runs the model.

The contract is `froc.measuring.metric.Metric`.
"""
