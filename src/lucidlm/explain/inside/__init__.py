"""Inside a model: what its layers, heads and neurons do on a text, and what changes when they are replaced.

- `trace` records and replaces activations, `reading` is a text as a model reads it; all views are made with the two.
- `attention`, `lens` (and `tuned_lens`), `norms`, `logits`, `patching`, `induction`, `probes`, `nearest`: a file a view.
- `view` is what all of them return: labelled numbers, and sentences on how far to trust them.
"""
