"""Readers of file formats: text in any encoding, tables, JSON, HTML, parquet, each as a stream of documents."""
