"""Text from a causal language model: sampling, beams, scores, and the key-value cache under them."""
