"""Baselines: one or more simple, strong methods for each kind of task."""
