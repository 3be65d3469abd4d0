"""What is where in the folder of a run, drawn once for all who read or write one.

config.json       every setting            tokens/           the text as token shards, if it was not one already
tokenizer.model   the tokenizer, copied    metrics.jsonl     one line a step, one line a validation
checkpoints/      see `checkpoint`         machine.json      what it was started on
evaluation.json   see `evaluation`
"""

__all__ = ["CHECKPOINTS", "CONFIG_FILE", "EVALUATION_FILE", "MACHINE_FILE", "METRICS_FILE", "TOKENIZER_FILE", "TOKENS"]

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.model"
MACHINE_FILE = "machine.json"
EVALUATION_FILE = "evaluation.json"
METRICS_FILE = "metrics.jsonl"
TOKENS = "tokens"
CHECKPOINTS = "checkpoints"
