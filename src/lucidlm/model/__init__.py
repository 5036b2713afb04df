"""One configurable Transformer, causal or bidirectional, and the heads that put it to work."""
