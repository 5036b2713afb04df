"""Commands that judge, compare, explain and report."""
