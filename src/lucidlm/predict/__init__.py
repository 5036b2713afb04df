"""What answers with a model: classifier, embedder, span reader, token tagger, text generator, vector index."""
