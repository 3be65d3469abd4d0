"""Results and events of the library as lines and tables for a person, in the user's language."""
