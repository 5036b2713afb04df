"""What becomes of a text before it is learned from: repaired, deduplicated, masked, or left out."""
