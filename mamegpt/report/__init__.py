"""Training runs as one HTML page."""
