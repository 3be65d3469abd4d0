"""``python -m mamegpt`` is ``mamegpt``."""

from mamegpt.cli import main

if __name__ == "__main__":
    main()
