"""Documents edited, filtered and deduplicated."""
