"""What `import lucidlm` gives people: one function a command, a class for each kind of model, results that show themselves.

- `training`, `judging`: the functions; their keywords are the command line's flags (`settings`).
- `models`: models opened from a source and called on texts.
- `results`, `html`: what the functions return, as data, in a line and in a notebook.
"""
