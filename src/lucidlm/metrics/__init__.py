"""Metrics with confidence intervals, and significance tests of the difference between two models."""
