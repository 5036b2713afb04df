"""Commands that use a model, and that carry it from one form to another."""
