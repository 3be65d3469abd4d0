"""The shell commands of the READMEs, the pages and the notebook for Colab."""

import json
import re
import shlex

from little import ROOT

__all__ = ["blocks", "code_cells", "commands"]


def blocks(name: str) -> list[str]:
    """The shell blocks of a README."""
    return re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def code_cells(name: str) -> list[str]:
    """The code cells of a notebook."""
    cells = json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def commands(name: str) -> list[list[str]]:
    """Every command line in the shell blocks, as words; continued lines are joined, comments dropped.

    In a notebook, lines such as ``!mamegpt --prompt "{PROMPT}"``, with what its form fills in.
    """
    if name.endswith(".ipynb"):
        code = "\n".join(code_cells(name))
        form = {name: value or "you/first" for name, value in re.findall(r'^(\w+) = "?(.*?)"?  # @param', code, re.M)}
        lines = re.findall(r'^(?: *!|TRAIN = ")(mamegpt .*?)"?$', code, re.M)
        return [shlex.split(line.format_map(form)) for line in lines]
    text = "\n".join(blocks(name)).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
