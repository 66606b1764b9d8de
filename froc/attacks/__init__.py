"""Attacks, one per file: what an adversary does before a metric measures the model.

An attack changes the model (quantisation, relearning) or the question (paraphrase, prefix), or reads hidden states
(latent perturbation, logit lens). Where there are several attacks or forms of a question, each query counts by its
worst one. A risk under an attack has its own budget. An adversary with data gets `Material`: training rows about facts
that are not measured (`froc.data.splits.held`), so that whatever returns was in the model. The contract is
`froc.measuring.attack.Attack`.

May import: measuring, models, data, hyperparameters, errors.
"""
