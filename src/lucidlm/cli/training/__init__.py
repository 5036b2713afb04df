"""Commands that make something to learn from, or learn."""
