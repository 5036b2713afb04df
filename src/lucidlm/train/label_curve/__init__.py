"""Label curves: what is learned from few labelled examples and from more, with pretraining and without."""
