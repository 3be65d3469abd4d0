"""The machine and its files: atomic writes, the Hub, hardware, what is printed."""
