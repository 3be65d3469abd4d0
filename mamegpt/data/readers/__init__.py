"""From files of every format to documents."""
