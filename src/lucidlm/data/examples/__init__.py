"""Labelled data: one small record for each kind of example, and the published forms that they come in."""
