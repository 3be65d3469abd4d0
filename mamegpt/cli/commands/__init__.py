"""The commands: one function each, whose docstring and parameters are its help and options."""
