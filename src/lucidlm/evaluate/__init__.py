"""How good a model is: metrics with confidence intervals, baselines beside it, and a file that says so."""
