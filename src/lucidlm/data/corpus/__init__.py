"""Plain text made ready for pretraining: prepared, packed into shards, described by a card, loaded as batches."""
