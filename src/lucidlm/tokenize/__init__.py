"""Text to token ids and back: vocabularies, chat templates, and prompts as ids. Knows nothing of where text comes from."""
