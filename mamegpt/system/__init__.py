"""The machine and its files: atomic writes, output paths, the Hub, hardware, validation of JSON."""
