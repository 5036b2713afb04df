"""How files are read: encodings, tables, JSON, HTML, parquet, each as a stream of documents."""
