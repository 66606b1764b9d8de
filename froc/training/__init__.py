"""Training one configuration, or several in the same passes, from the base model.

    method               the contract of unlearning methods (the plug-ins are in `froc.methods`)
    phase                what one training step consists of: terms, weighters, combiners, filters, adversaries, edits, rollouts
    terms  components    its parts: loss terms; combiners, update filters, adversaries, edits, rollouts
    base_statistics      training rows, and numbers of the base model on them, computed once per task
    entry_states         inputs of the first block that training changes, computed once per row
    token_distribution   the base model's next-token distributions
    fisher  causal_tracing  alternates   Fisher information of matrices; where answers are stored; alternative answers
    loop  run            the training loop; one configuration in training
    clipping             gradients clipped to a norm, on one device or several
    optimiser  schedule  gradients, AdamW and update filters of a phase; learning-rate schedule, length and order of rows
    adamw  adamw8bit     the optimisers, by name; moments in 8 bits
    memory_simulation    a method's steps without values: the memory that they need
    rollout_rows         rows that the model writes during training
    checkpoint           a training run on disk, from which it can continue
    embedded             the small model of the embedded task

May import: measuring, models, data.
"""
