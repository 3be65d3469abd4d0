"""Evaluation of models, with an n-gram baseline."""
