"""Methods of attribution: what each piece of a text adds to a prediction."""
