"""Runs that are being written: what their directories say so far, and how a terminal shows it."""
