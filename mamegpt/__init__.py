"""豆GPT: raw Japanese text in, a published language model out, on the machine you have."""

__version__ = "0.1.0"
