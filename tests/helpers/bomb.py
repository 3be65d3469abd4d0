"""An object whose pickle runs code."""

import os
from pathlib import Path
from typing import Any

__all__ = ["Bomb"]


class Bomb:
    """Pickled, it makes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)
