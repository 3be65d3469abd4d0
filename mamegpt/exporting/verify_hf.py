"""Load an exported folder in a process of its own, with public packages only.

    python verify_hf.py FOLDER CASES.json FOUND

`check_hf` runs it on each exported folder, before the folder gets its name. It writes tensors to ``FOUND.pt`` and
everything else to ``FOUND.json``. It must not import mamegpt: it stands for a machine without this package.

``CASES.json`` contains ``prompts``, rows of token ids of one length; ``n_new``, the number of tokens to continue each
by; ``rows``, other rows of one length; ``texts``; ``chats``, conversations that need an answer; ``asked``, those that
leave room for one, as token ids; ``written``, texts for the pipeline to continue by ``n_written`` tokens, including an
empty one; the names of ``weight_files``; and ``trust_remote_code``, whether the folder's own code must run.
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

FEW_ROWS, FEW_TOKENS = 3, 16


def main(folder: str, cases_file: str, found_name: str) -> None:
    """Load the folder in every way that its files support, and write the outputs."""
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    rows, prompts = torch.tensor(cases["rows"]), torch.tensor(cases["prompts"])
    trust = {"trust_remote_code": cases["trust_remote_code"]}
    found: dict[str, Any] = {"odd_keys": {}}
    logits = {}
    for name in cases["weight_files"]:
        safe = {"use_safetensors": name.endswith(".safetensors")}
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **safe, **trust
        )
        model.eval()
        found["odd_keys"][name] = sorted(
            str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]
        )
        with torch.inference_mode():
            logits[name] = model(rows).logits
    torch.save(logits, f"{found_name}.pt")

    options = {"max_new_tokens": cases["n_new"], "do_sample": False, "pad_token_id": 0}
    found["answers"] = []
    for ids in cases["asked"]:
        question = torch.tensor([ids])
        answered = model.generate(question, attention_mask=torch.ones_like(question), **options)
        found["answers"].append(answered[0, len(ids) :].tolist())
    model.generation_config.eos_token_id = None  # continue past the end of a text: all rows must have one length
    whole = model.generate(prompts, attention_mask=torch.ones_like(prompts), use_cache=True, **options)
    found["greedy"] = whole[:, prompts.shape[1] :].tolist()
    found["uncached"] = forced(model, whole)[:, prompts.shape[1] - 1 :].tolist()
    few = prompts[:FEW_ROWS]
    found |= behaviour(model, few, min(FEW_TOKENS, cases["n_new"]))

    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)  # or transformers 5 asks a question
    # "</s>" in a user's text is ordinary text.
    text_ids = tokenizer(cases["texts"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found["text_ids"], found["decoded"] = text_ids, tokenizer.batch_decode(text_ids)
    # Rendered, then encoded: what apply_chat_template returns otherwise depends on the version of transformers.
    rendered = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for messages in cases["chats"]
    ]
    found["chat_ids"] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered]
    found |= written(pipeline("text-generation", model=folder, **trust), cases["written"], cases["n_written"])
    Path(f"{found_name}.json").write_text(json.dumps(found), encoding="utf-8")


def written(writer: Any, prompts: Sequence[str], n_new: int) -> dict[str, Any]:
    """Return the outputs of a pipeline for each prompt: all ids, including those of the prompt, and their text."""
    options = {"max_new_tokens": n_new, "do_sample": False, "return_tensors": True}
    rows = [list(map(int, writer(prompt, **options)[0]["generated_token_ids"])) for prompt in prompts]
    return {"written_ids": rows, "written": writer.tokenizer.batch_decode(rows, skip_special_tokens=True)}


@torch.inference_mode()
def forced(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the most likely token after each position but the last, without a cache: (B, T) -> (B, T - 1).

    If a row was continued greedily, and each of its tokens is the most likely one here, then generation without a cache
    would give the same row.
    """
    rows = [model(row[None, :-1], use_cache=False).logits.argmax(-1) for row in ids]
    return torch.cat(rows)


@torch.inference_mode()
def behaviour(model: Any, ids: torch.Tensor, n_new_tokens: int) -> dict[str, float]:
    """Return the differences of logits with and without cache and with and without padding, and the loss for labels."""
    options = {
        "max_new_tokens": n_new_tokens,
        "do_sample": False,
        "pad_token_id": 0,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
    half = ids.shape[1] // 2
    padded, mask = ids.clone(), torch.ones_like(ids)
    padded[0, :half] = 0
    mask[0, :half] = 0
    alone = model.generate(ids[:1, half:], attention_mask=mask[:1, half:], **options)
    beside = model.generate(padded, attention_mask=mask, **options)
    labelled = cached.sequences
    logits = model(labelled).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labelled[:, 1:].flatten())
    return {
        "cache_difference": difference(cached.logits, plain.logits),
        "padding_difference": difference(alone.logits, [step[:1] for step in beside.logits]),
        "loss_difference": abs(model(labelled, labels=labelled).loss.item() - loss.item()),
    }


def difference(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of two lists of logits, (B, V) per new token, as long as the tokens are equal."""
    worst = torch.zeros(())
    for a, b in zip(some, others, strict=True):
        worst = torch.maximum(worst, (a - b).abs().max())  # NaN stays NaN
        if (a.argmax(-1) != b.argmax(-1)).any():
            break  # from here on the texts differ
    return worst.item()


if __name__ == "__main__":
    main(*sys.argv[1:])
