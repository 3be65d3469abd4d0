"""Prints what a release changes: its section of CHANGELOG.md.

    python -m release.notes v0.1.0

Ends with exit code 2 if the tag is not the package's version, or if the section still says that it is not released.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import mamegpt

ROOT = Path(__file__).resolve().parents[1]


def notes(tag: str, changes: str) -> str:
    """Return the section for a tag. Raises `ValueError` if there is none that can be released."""
    version = tag.removeprefix("v")
    if version != mamegpt.__version__:
        raise ValueError(f"the tag is {tag}, and the package's version is {mamegpt.__version__}")
    found = re.search(rf"(?ms)^## {re.escape(version)} \((?P<date>[^)]*)\)\n(?P<text>.*?)(?=^## |\Z)", changes)
    if found is None or not re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"]):
        raise ValueError(f"CHANGELOG.md needs a section '## {version} (YEAR-MONTH-DAY)'")
    return found["text"].strip() + "\n"


def main() -> None:
    """Print the section for the tag that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag")
    args = parser.parse_args()
    try:
        print(notes(args.tag, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), end="")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
