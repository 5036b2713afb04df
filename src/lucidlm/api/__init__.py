"""What `import lucidlm` gives people: one function a command, results that show themselves.

- `training`, `judging`: the functions; their keywords are the command line's flags (`settings`).
- `results`, `html`: what the functions return, as data, in a line and in a notebook.
"""
