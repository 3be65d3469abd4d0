"""Load an exported classifier in a process of its own, with public packages only.

    python verify_classifier.py FOLDER CASES.json FOUND

`check_classifier` runs it on each exported folder, before the folder gets its name. It writes tensors to ``FOUND.pt``
and everything else to ``FOUND.json``. It must not import mamegpt: it stands for a machine without this package.

``CASES.json`` contains ``rows``, rows of token ids of different lengths; ``texts`` to tokenize; and ``piped``, texts
that the pipeline classifies.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline


def main(folder: str, cases_file: str, found_name: str) -> None:
    """Load the folder, and write what the model, its tokenizer and a pipeline of both give."""
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    odd_keys = sorted(str(key) for kind in kinds for key in info[kind])
    model.eval()
    with torch.inference_mode():
        alone = torch.cat([model(torch.tensor([row])).logits for row in cases["rows"]])
        padded = tokenizer.pad({"input_ids": cases["rows"]}, return_tensors="pt")
        together = model(**padded).logits
    torch.save({"alone": alone, "together": together}, f"{found_name}.pt")

    # "</s>" in a user's text is ordinary text.
    text_ids = tokenizer(cases["texts"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    classify = pipeline("text-classification", model=folder, top_k=None, device="cpu")
    piped: Any = classify(cases["piped"], truncation=True)
    found = {
        "odd_keys": odd_keys,
        "text_ids": text_ids,
        "decoded": tokenizer.batch_decode(text_ids),
        "piped": [{one["label"]: one["score"] for one in scores} for scores in piped],
    }
    Path(f"{found_name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
