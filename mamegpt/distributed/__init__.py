"""Several processes: communication and sharded weights."""
