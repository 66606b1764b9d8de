"""A language model: loading, trainable parameters, batches, one forward pass, generation.

    base  architecture  adapters   loading and saving a base model; required architecture; adapter folders, merged
    inference_files                configuration, tokenizer and chat template beside the weights: digests and differences
    model_name  training_options   values of options, checked before torch is imported
    weights_digest                 one digest of a model's weights, read from files without torch
    stored_weights                 kept parameters, read a tensor at a time
    trainable                      which parameters trials may change: all, some layers, LoRA adapters
    adapter_layers  experts        peft's layers in a model; mixtures of experts: what adapters change, and the router
    nf4                            frozen linear layers held in four bits
    batches  forward  hooks  likelihood   rows as tensors; one pass; reading and changing hidden states; log-probabilities
    block_entry                    passes that begin behind the blocks that no trial changes
    narrowing                      which models may process the predicting positions only
    generation                     answers that a model writes
    attention  determinism         which attention computes a model; the same bits each time
    device_map                     one model's blocks on several devices
    process_group                  processes that divide one model: who they are, what they decide together
    sharding                       one model's weights divided among processes
    random_state                   states of random generators
    compute  onednn                precision and compilation; faster linear layers on some CPUs
    memory_needs  allocations      the memory that training takes, before it is tried; bytes counted on the meta device
    autocast                       autocast on every device, the meta device included
    device_room                    memory that a device has left, and copies there or on the host
    memory                         too little memory: recognised on every device, met with fewer rows at a time
    vocabulary                     whether a tokenizer reveals what is to be forgotten

May import: data and what data may import.
"""
