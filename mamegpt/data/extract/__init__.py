"""Documents about a topic, cut out of a corpus."""
