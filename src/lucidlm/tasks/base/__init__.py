"""What tasks share: their registry, their parts and shots, and two kinds of task that several build on."""
