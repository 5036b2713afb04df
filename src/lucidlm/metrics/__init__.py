"""What models are judged by: figures with intervals, and tests of whether two models differ."""
