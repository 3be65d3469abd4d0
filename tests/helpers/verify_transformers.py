"""What transformers, 4 or 5, makes of exported folders: run by test_export.py in a process of its own.

    python verify_transformers.py FOLDER CASES.json FOUND.pt [FOLDER CASES.json FOUND.pt ...]

``CASES.json`` holds ``ids`` (rows of one length), ``n_new_tokens``, ``texts``, ``scratch``, a folder to make, and
``trust_remote_code``.
``FOUND.pt`` is a dict of tensors and plain values. Only public packages are imported here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings")


@torch.no_grad()
def main(folder: str, cases_file: str, found_file: str) -> None:
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    ids, n_new = torch.tensor(cases["ids"]), cases["n_new_tokens"]
    ones = torch.ones_like(ids)
    found: dict[str, Any] = {"version": transformers.__version__}

    trust = {"trust_remote_code": cases["trust_remote_code"]}
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **trust)
    model.eval()
    found["odd_keys"] = [str(k) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for k in info[kind]]
    found["dtype"] = str(next(model.parameters()).dtype)
    found["sizes"] = {name: getattr(model.config, name) for name in SIZES}
    found["logits"] = model(ids).logits
    found["last_two"] = model(ids, logits_to_keep=2).logits
    found["from_embeddings"] = model(inputs_embeds=model.get_input_embeddings()(ids)).logits

    # Greedy and other ways to generate. No end of text, so that all rows are of one length.
    model.generation_config.eos_token_id = None
    options: dict[str, Any] = {"max_new_tokens": n_new, "do_sample": False, "pad_token_id": 3}
    found["cached"] = model.generate(ids, attention_mask=ones, use_cache=True, **options)
    found["uncached"] = model.generate(ids, attention_mask=ones, use_cache=False, **options)
    found["one_beam_of_two"] = model.generate(ids, attention_mask=ones, num_beams=2, **options).shape
    found["sampled"] = model.generate(
        ids, attention_mask=ones, do_sample=True, num_return_sequences=2, max_new_tokens=3, pad_token_id=3
    ).shape

    # Keys and values by hand, in steps of several tokens.
    past, chunks = None, []
    for part in ids.split(5, dim=1):
        out = model(part, past_key_values=past, use_cache=True)
        past = out.past_key_values
        chunks.append(out.logits)
    found["in_chunks"] = torch.cat(chunks, dim=1)

    # Each row padded on the left by another number of tokens.
    rows = [row[i:] for i, row in enumerate(ids)]
    width = ids.shape[1]
    padded = torch.stack([torch.cat((torch.full((width - len(row),), 3), row)) for row in rows])
    mask = torch.stack([torch.cat((torch.zeros(width - len(row)), torch.ones(len(row)))).long() for row in rows])
    # GPT-2 counts padding as positions unless it is told them; `generate` does so.
    counted = (mask.cumsum(-1) - 1).clamp(min=0) if model.config.model_type == "gpt2" else None

    def padded_part(start: int, end: int, past: Any = None) -> Any:
        positions = {} if counted is None else {"position_ids": counted[:, start:end]}
        return model(
            padded[:, start:end], attention_mask=mask[:, :end], past_key_values=past, use_cache=True, **positions
        )

    found["padded_logits"] = [r[width - len(row) :] for r, row in zip(padded_part(0, width).logits, rows, strict=True)]
    past, chunks = None, []
    for end in range(4, width + 1, 4):
        out = padded_part(end - 4, end, past)
        past = out.past_key_values
        chunks.append(out.logits)
    found["padded_in_chunks"] = [row[width - len(r) :] for row, r in zip(torch.cat(chunks, dim=1), rows, strict=True)]
    found["alone_logits"] = [model(row[None]).logits[0] for row in rows]
    found["padded_text"] = model.generate(padded, attention_mask=mask, **options)[:, width:]
    found["alone_text"] = torch.cat(
        [model.generate(r[None], attention_mask=r[None] > -1, **options)[:, len(r) :] for r in rows]
    )

    # Labels: the ids themselves, shifted inside, -100 ignored.
    labels = ids.clone()
    labels[:, :4] = -100
    found["loss"] = model(ids, labels=ids).loss
    found["loss_of_some"] = model(ids, labels=labels).loss

    # Saved and loaded again, with its code if it has some.
    again = Path(cases["scratch"]) / "again"
    model.save_pretrained(again)
    found["files_again"] = sorted(path.name for path in again.iterdir())
    reloaded = AutoModelForCausalLM.from_pretrained(again, **trust).eval()
    found["logits_again"] = reloaded(ids).logits

    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    plain = {"split_special_tokens": True}  # "</s>" in these texts is text
    found["text_ids"] = [tokenizer(text, **plain)["input_ids"] for text in cases["texts"]]
    found["decoded"] = [tokenizer.decode(row) for row in found["text_ids"]]
    found["special_ids"] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    found["padding_side"] = tokenizer.padding_side

    # Without trust transformers 5 asks a question; nobody answers, and the tokenizer, which has no code, loads.
    found["untrusted_ids"] = [
        AutoTokenizer.from_pretrained(folder)(text, **plain)["input_ids"] for text in cases["texts"][:3]
    ]

    card = (Path(folder) / "README.md").read_text(encoding="utf-8")
    os.chdir(Path(folder).parent)  # the card names the model as the Hub does
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(card.split("```python\n")[1].split("```")[0], {})
    found["card"] = printed.getvalue()

    writer = pipeline("text-generation", model=folder, **trust)
    answer = writer(cases["texts"][0], max_new_tokens=4, do_sample=False, return_full_text=False)
    found["pipeline"] = answer[0]["generated_text"]
    found["knows_mamegpt"] = any(name.split(".")[0] == "mamegpt" for name in sys.modules)
    torch.save(found, found_file)


if __name__ == "__main__":
    for i in range(1, len(sys.argv), 3):
        main(*sys.argv[i : i + 3])
