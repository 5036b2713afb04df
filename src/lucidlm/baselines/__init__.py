"""What models have to beat: one honest, simple method or more for each kind of task."""
