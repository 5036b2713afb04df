"""What answers with a model: classifier, embedder, span reader, text generator, vector index."""
