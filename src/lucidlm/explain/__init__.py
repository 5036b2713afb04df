"""Feature attribution: which tokens of a text a prediction depends on."""
