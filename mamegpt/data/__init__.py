"""Text as documents: read, extracted, cleaned and written, and as token shards."""
