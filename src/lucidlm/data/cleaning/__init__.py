"""Texts repaired, deduplicated, masked or left out before training."""
