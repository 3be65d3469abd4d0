"""What is where in the folder of a run, drawn once for all who read or write one.

config.json       every setting            tokens/           the text as token shards, if it was not one already
tokenizer.model   the tokenizer, copied    metrics.jsonl     one line a step, one line a validation
checkpoints/      see `checkpoint`         machine.json      what it was started on
evaluation.json   what `mamegpt eval` found, if it was asked; report.html, if it was asked for
extensions.json   what was added to it after it was finished
.job              the torchrun job that began it, if one did
"""

from pathlib import Path

from mamegpt.system.files import is_here

__all__ = [
    "CHECKPOINTS",
    "CONFIG_FILE",
    "EVALUATION_FILE",
    "EXTENSIONS_FILE",
    "JOB_FILE",
    "MACHINE_FILE",
    "METRICS_FILE",
    "REPORT_FILE",
    "RUN_FILES",
    "TOKENIZER_FILE",
    "TOKENS",
    "is_run",
]

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.model"
MACHINE_FILE = "machine.json"
METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
EXTENSIONS_FILE = "extensions.json"
REPORT_FILE = "report.html"
JOB_FILE = ".job"
TOKENS = "tokens"
CHECKPOINTS = "checkpoints"
RUN_FILES = (
    CONFIG_FILE, TOKENIZER_FILE, MACHINE_FILE, METRICS_FILE, EVALUATION_FILE, EXTENSIONS_FILE, JOB_FILE,
    TOKENS, CHECKPOINTS, ".lock",
)  # fmt: skip
"""What no other command writes over."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run: it holds settings, and something that training made."""
    made = (CHECKPOINTS, METRICS_FILE, TOKENS)
    return is_here(folder / CONFIG_FILE) and any(is_here(folder / name) for name in made)
