"""Unlearning methods: one file each; `froc/methods/npo.py` is the method `npo`.

A method is a frozen dataclass. Its fields are its hyperparameters; `phases` says what one step is made of
(see `froc.training.phase`). Adding a file here is all it takes: the name, the search space, the contract tests follow.

A `Wrapper` changes the phases of another method: `gu(npo)` is made of both, with the hyperparameters of both.

The contract is `froc.training.method.Method`; what a phase is made of stands in `froc.training.phase`.
"""
