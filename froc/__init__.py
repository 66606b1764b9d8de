"""CORE: what is measured and what follows from it. Imports none of the other rooms.

How the files depend on each other, top to bottom::

    errors  params  digest  plugins       words every file shares
    data  tasks/                          rows, queries, the sealed split; what can be worked on
    models  scope  linear                 a base model, what of it trials may change, its layers on this processor
    batches  forward  step  methods/      rows as tensors, one pass, one training step in parts, the methods
    engine  train                         precision and memory; the one training loop, for one run or a pack
    presets  risks                        risks by name: queries, metric, attacks
    observe  depth  metrics/  attacks/    what a model does with queries; scores of it; what an adversary may do first
    measure                               unlearned model -> per-query losses
    losses  bounds/  procedures/          the loss table; one theorem each; who may be rejected together
    shift  combined  claim                losses -> p-values and bounds for one claim
    power  exchangeability  sentences     what it would take; do losses look like independent draws; words for it
    risk                                  -> certified set, CUR, certificate
    formats/  published  diagnostics      tables from elsewhere; the paper's score; numbers that are shown, never certified
    figures  curves                       pictures of a run

What stands from `losses` on, and `errors`, `params`, `plugins`, `digest`, `data`, never imports torch.
"""

__version__ = "0.1.0"
