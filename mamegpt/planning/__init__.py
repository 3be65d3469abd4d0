"""What a training costs and yields, before it."""
