"""Runs made readable: one HTML file with curves, figures, samples and where all of it came from."""
