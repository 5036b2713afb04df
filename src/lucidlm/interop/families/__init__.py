"""One short file for each family of models that config.json may name: its fields and the names of its weights.

`rotary` holds what the families with rotary positions have in common.
"""
