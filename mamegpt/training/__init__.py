"""Training: set-up, loop, optimizer, validation and events."""
