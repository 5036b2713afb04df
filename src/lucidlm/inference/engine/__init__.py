"""Continuous batching: requests that come and go, in one batch, over a block-wise cache of keys and values."""
