"""Fuzzing: the parsers of data from outside, and what mutates their bytes."""
