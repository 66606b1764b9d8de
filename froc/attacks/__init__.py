"""Attacks: one file each. What an adversary may do before the model is measured; any metric then measures the result.

An attack changes the model (quantisation, relearning), the question (paraphrase, prefix), or looks inside (latent
perturbation, logit lens); it leaves what it does not touch as it is. Where several are named, or one has several forms, the
worst for each query counts. Measured under an attack, a risk is a risk of its own with its own budget.

An adversary who has data has `Material`: rows for training whose facts are not among the measured ones (`froc.data.task.held`),
so what comes back was in the model and not in the attack.

The contract is `froc.measuring.attack.Attack`.
"""
