"""The Code World Model: decoder, tokenizer, checkpoints, sharding, planning, chat formats, engine.

May import: nothing above; chat imports no torch.
Begin at: the list that follows.

To understand the model, read in this order:

    config          its numbers: 64 layers, which of them see all tokens and which a window
    decoder         the forward pass, top to bottom
    attention, rope, activation, head
                    what the forward calls; head turns hidden states into log-probabilities
    tokenizer, tiktoken
                    text to ids; the reserved tokens of chats and execution traces
    weights/        checkpoints: whose names, in which files, from one to the other
    parallel/       the same forward on many GPUs: layout, tensor, context, sharded
    plan/           what that takes, traced without a GPU
    huggingface     another model of transformers in the decoder's place
"""
