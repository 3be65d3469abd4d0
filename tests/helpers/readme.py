"""The shell commands of the READMEs."""

import re
import shlex

from little import ROOT

__all__ = ["blocks", "commands"]


def blocks(name: str) -> list[str]:
    """The shell blocks of a README."""
    return re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def commands(name: str) -> list[list[str]]:
    """Every command line in the shell blocks, as words; continued lines are joined, comments dropped."""
    text = "\n".join(blocks(name)).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
