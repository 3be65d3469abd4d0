"""The names of the files in the folder of a run.

config.json       all settings             tokens/           token shards, unless --data was a folder of them
tokenizer.model   a copy of the tokenizer  metrics.jsonl     one line per step, one line per validation
checkpoints/      see `checkpoint`         machine.json      the hardware it was started on
evaluation.json   the results of `mamegpt eval`; report.html, with --report
labels.json       the labels of a classifier; confusion.json, how it does on held-out texts
reference.safetensors   of a run of DPO: log-probabilities of the answers by the model that it starts from;
                        of a run of GRPO: the weights of that model
extensions.json   what --more-steps and --more-minutes added
.job              the torchrun job that started it, if any
"""

from pathlib import Path

from mamegpt.system.files import is_here

__all__ = [
    "CHECKPOINTS",
    "CONFIG_FILE",
    "CONFUSION_FILE",
    "EVALUATION_FILE",
    "EXTENSIONS_FILE",
    "JOB_FILE",
    "LABELS_FILE",
    "MACHINE_FILE",
    "METRICS_FILE",
    "REFERENCE_FILE",
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
LABELS_FILE = "labels.json"
CONFUSION_FILE = "confusion.json"
REFERENCE_FILE = "reference.safetensors"
EXTENSIONS_FILE = "extensions.json"
REPORT_FILE = "report.html"
JOB_FILE = ".job"
TOKENS = "tokens"
CHECKPOINTS = "checkpoints"
# fmt: off
RUN_FILES = (
    CONFIG_FILE, TOKENIZER_FILE, MACHINE_FILE, METRICS_FILE, EVALUATION_FILE, EXTENSIONS_FILE, JOB_FILE,
    LABELS_FILE, CONFUSION_FILE, REFERENCE_FILE, TOKENS, CHECKPOINTS, ".lock",
)
# fmt: on
"""Files that no other command overwrites."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run: it contains settings, and something that training made."""
    made = (CHECKPOINTS, METRICS_FILE, TOKENS)
    return is_here(folder / CONFIG_FILE) and any(is_here(folder / name) for name in made)
