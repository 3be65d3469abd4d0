"""Pure functions on strings: normalization, matching, articles, character classes."""
