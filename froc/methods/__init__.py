"""Unlearning methods, one per file: `froc/methods/npo.py` is the method `npo`.

A method is a frozen dataclass (`froc.training.method.Method`). Its fields are its hyperparameters, each with the range
that a search draws from; `phases` says what a training step consists of (`froc.training.phase`). Adding a file here is
enough: the name, the search space and the contract tests follow from it. A `Wrapper` changes the phases of another
method: `gu(npo)` has the hyperparameters of both.

Notation in the docstrings: NLL is the negative log-likelihood of a row's answer tokens and their end token in nats,
averaged over the tokens and then over the rows unless it is said to be summed; p is the probability of the true token,
z are logits, h hidden states, g gradients, theta parameters; the subscripts f, r and base mean forget rows, retain rows
and the model before unlearning; sg() blocks gradients. "Our reading" marks what the paper leaves open or what could not
be read.
"""
