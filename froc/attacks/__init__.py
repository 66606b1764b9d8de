"""Attacks, one file each: what an adversary may do before a metric measures the model.

An attack changes the model (quantisation, relearning) or the question (paraphrase, prefix), or reads hidden states (latent
perturbation, logit lens). Of several attacks or forms the worst counts for each query. A risk under an attack has its own
budget. An adversary with data gets `Material`: training rows about facts that are not measured (`froc.data.splits.held`), so
that what returns was in the model. The contract is `froc.measuring.attack.Attack`.

May import: measuring, models, data, hyperparameters, errors.
"""
