"""CORE: what is measured and what follows from it. Imports none of the other rooms.

How the files depend on each other, top to bottom::

    errors  params  digest  plugins       words every file shares
    data  tasks/                          rows, queries, the sealed split; what can be worked on
    models  batches  step  methods/       a base model, its batches, one training step, the methods
    train  measure  metrics/  attacks/    configuration -> unlearned model -> per-query losses
    losses  bounds/  procedures  claim    losses -> p-values and bounds for one claim
    power  shift  risk                    -> certified set, CUR, what it would take, certificate
    formats/  published  figures          tables from elsewhere; the paper's score; pictures of a run

`errors`, `params`, `plugins`, `digest`, `data`, `losses`, `procedures`, `claim`, `power`,
`shift`, `risk`, `published`, `figures`, `bounds/`
and `formats/` never import torch.
"""

__version__ = "0.1.0"
