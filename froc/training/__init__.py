"""Training one configuration, or several in the same passes, from the base model.

    phase                what one training step is made of: terms, weighters, combiners, filters, adversaries, edits, rollouts
    components  terms    its parts: loss terms; combiners, filters, adversaries, edits, rollouts
    method               the contract of unlearning methods (the plug-ins are in `froc.methods`)
    base_statistics      numbers of the base model on training rows, computed once; questions that methods ask it
    token_distribution   the base model's next-token distributions
    fisher  causal_tracing  alternates   Fisher information of matrices; where answers are stored; alternative answers
    run  schedule        one configuration in training; its learning-rate schedule and length
    loop  checkpoint     the training loop; its state on disk, from which it goes on
    embedded             the small model of the embedded task

May import: measuring, models, data.
"""
