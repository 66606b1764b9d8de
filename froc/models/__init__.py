"""A language model: loading, trainable parameters, batches, one forward pass, generation.

    base  architecture  adapters   load and save a base model; what it must be; adapter folders, merged
    inference_files                configuration, tokenizer and chat template beside the weights: what is written, what differs
    weights_digest                 one digest of a model's weights, read from files without torch
    trainable                      which parameters trials may change: all, some layers, LoRA adapters
    batches  forward  hooks  likelihood   rows as tensors; one pass; reading and changing hidden states; log-probabilities
    generation                     answers that a model writes
    compute  onednn                precision, memory and compilation; faster linear layers on this processor
    vocabulary                     does a tokenizer give away what is to be forgotten

May import: data and what data may import.
"""
