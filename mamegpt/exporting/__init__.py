"""A model in the formats of others, verified and published."""
