"""Architectures, one folder each, and their common parts."""
