"""Exports of models in other formats: written, verified, uploaded."""
