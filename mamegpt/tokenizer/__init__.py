"""SentencePiece tokenizers: training, use, conversion and measurement."""
