"""Text from a model: settings, samplers, cache, stream and batch."""
