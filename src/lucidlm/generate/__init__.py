"""Text from a causal language model: the cache of keys and values, the choice of the next token, batched decoding."""
