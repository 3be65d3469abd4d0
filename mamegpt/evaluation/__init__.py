"""How good a model is, beside an n-gram model."""
