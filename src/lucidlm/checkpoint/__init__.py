"""Models on the disk: the model directory, its weights and record, families of models, adapters, where models come from."""
