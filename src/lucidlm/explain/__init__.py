"""Why a model says what it says: which tokens of a text a prediction rests on."""
