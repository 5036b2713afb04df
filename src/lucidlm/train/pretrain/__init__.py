"""Pretraining: next or masked tokens of plain text."""
