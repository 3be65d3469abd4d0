"""What the programs for Python runtimes share: ask a runtime for all outputs of the cases, and write them.

    python run_NAME.py CASES.json FOUND.json

``CASES.json`` holds ``models``, the exported folder or file of each format; ``prompts``, token ids, and their texts;
``n_new``, the number of tokens to continue each by; and ``texts`` to tokenize, ``normalized`` as in training too. It
must not import mamegpt: a program stands for a machine without it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Continue", "Encode", "encode_with", "run"]

Continue = Callable[[list[int], int], list[int]]
"""Return the new ids of a greedy continuation of ids by so many tokens."""
Encode = Callable[[list[str], list[str]], list[list[int]]]
"""Return the ids of texts, given as they are and normalized, without special tokens."""


def run(model_format: str, load: Callable[[str], tuple[Any, Encode]], prompts: str = "prompts") -> None:
    """Load the model of a format, continue each prompt twice (the second time timed), tokenize, and write it all.

    ``prompts`` is "prompt_texts" for a runtime that takes and gives texts.
    """
    cases: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    continued, encode = load(cases["models"][model_format])
    greedy = [continued(prompt, cases["n_new"]) for prompt in cases[prompts]]
    begin = time.perf_counter()
    for prompt in cases[prompts]:
        continued(prompt, cases["n_new"])
    seconds = time.perf_counter() - begin
    text_ids = encode(cases["texts"], cases["normalized"])
    found = {"greedy": greedy, "seconds": seconds, "text_ids": text_ids}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def encode_with(tokenizer_json: Path) -> Encode:
    """Return how ``tokenizers`` reads an exported ``tokenizer.json``; names of special tokens are plain text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.encode_special_tokens = True
    return lambda texts, _: [it.ids for it in tokenizer.encode_batch(texts, add_special_tokens=False)]
