"""What a stranger sees in an exported folder; run in a process of its own, with the public packages only.

    python verify_export.py FOLDER CASES.json FOUND.json

``export_hf`` starts it on every folder it writes, before the folder gets its name, and reads what it writes. It
must not import mamegpt: it stands for a machine that has never heard of it.

``CASES.json`` holds ``ids``, a list of rows of token ids of one length; ``n_new_tokens``; ``texts``; the names of
``weight_files``; and ``trust_remote_code``, whether the folder's own code has to run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline


def main(folder: str, cases_file: str, found_file: str) -> None:
    """Load the folder in every way its files promise, and write down what came out."""
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    ids = torch.tensor(cases["ids"])
    trust = {"trust_remote_code": cases["trust_remote_code"]}
    found: dict[str, Any] = {}
    for name in cases["weight_files"]:
        safe = {"use_safetensors": name.endswith(".safetensors")}
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **safe, **trust
        )
        model.eval()
        odd_keys = sorted(
            str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]
        )
        with torch.inference_mode():
            found[name] = {"odd_keys": odd_keys, "logits": model(ids).logits.tolist()}
    found |= behaviour(model, ids, cases["n_new_tokens"])
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)  # or transformers 5 asks a question
    found["text_ids"] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in cases["texts"]]
    found["decoded"] = [tokenizer.decode(row) for row in found["text_ids"]]
    writer: Any = pipeline("text-generation", model=folder, **trust)
    row = cases["ids"][0]
    prompt = tokenizer.decode(row[: max(1, len(row) // 2)])  # of tokens, for it must fit into a small context too
    found["pipeline"] = writer(prompt, max_new_tokens=cases["n_new_tokens"], do_sample=False)[0]["generated_text"]
    Path(found_file).write_text(json.dumps(found), encoding="utf-8")


@torch.inference_mode()
def behaviour(model: Any, ids: torch.Tensor, n_new_tokens: int) -> dict[str, Any]:
    """Greedy continuations with and without cache, of padded rows, and the loss of labels."""
    options = {"max_new_tokens": n_new_tokens, "do_sample": False, "pad_token_id": 0,
               "return_dict_in_generate": True, "output_logits": True}  # fmt: skip
    model.generation_config.eos_token_id = None  # past the end of a text too: all rows are to be of one length
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
    half = ids.shape[1] // 2
    padded, mask = ids.clone(), torch.ones_like(ids)
    padded[0, :half] = 0
    mask[0, :half] = 0
    alone = model.generate(ids[:1, half:], attention_mask=mask[:1, half:], **options)
    beside = model.generate(padded, attention_mask=mask, **options)
    logits = model(ids).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return {
        "cached": cached.sequences.tolist(),
        "cache_difference": difference(cached.logits, plain.logits),
        "padding_difference": difference(alone.logits, [step[:1] for step in beside.logits]),
        "loss_difference": abs(model(ids, labels=ids).loss.item() - loss.item()),
    }


def difference(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """The largest difference of two lists of logits, one (B, V) for each new token."""
    return (torch.stack(list(some)) - torch.stack(list(others))).abs().max().item()


if __name__ == "__main__":
    main(*sys.argv[1:])
