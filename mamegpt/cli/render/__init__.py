"""Rendering of results and events as lines and tables, in the user's language."""
