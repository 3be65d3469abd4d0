"""Estimates of time, memory and quality before training."""
