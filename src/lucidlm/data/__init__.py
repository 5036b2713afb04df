"""From sources to shards: reading, cleaning, deduplicating, splitting, tokenising and packing text."""
