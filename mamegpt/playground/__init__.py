"""A local page and API to write with models."""
