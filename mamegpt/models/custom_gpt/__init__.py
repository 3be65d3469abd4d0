"""The book's GPT."""
