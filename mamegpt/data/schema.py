"""How to find documents in files: options that every command which reads text has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from mamegpt.arguments import checked

__all__ = ["GUESS", "SETTINGS", "Schema"]


@checked
@dataclass(frozen=True)
class Schema:
    """Columns, layout and encoding of text files; what is empty or ``auto`` is inferred."""

    text_column: str = ""
    """Column or key of the text (default: text, or the only one that holds strings)."""
    title_column: str = ""
    """Column or key of the title (default: title)."""
    txt_layout: Literal["auto", "file", "line", "block"] = "auto"
    """One document of a txt file; auto: articles headed 【title】, else pieces of plain text."""
    encoding: str = "utf-8"
    """Encoding of all text files but parquet, such as cp932, euc-jp or utf-16."""

    def options(self) -> list[str]:
        """Return these settings as command-line arguments."""
        said = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return [word for name, value in said for word in (f"--{name.replace('_', '-')}", value)]


GUESS = Schema()
"""The default: infer everything."""
SETTINGS = tuple(field.name for field in fields(Schema))
"""The names of the fields."""
