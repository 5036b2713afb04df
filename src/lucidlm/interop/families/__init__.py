"""One short file for each family of models that config.json may name: its fields and the names of its weights."""
