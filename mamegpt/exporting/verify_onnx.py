"""Run an exported ONNX graph in a process of its own, with public packages only.

    python verify_onnx.py FOLDER CASES.json FOUND

`check_onnx` runs it on each exported folder, before the folder gets its name. It writes logits to ``FOUND.npy`` and
everything else to ``FOUND.json``. It must not import mamegpt.

``CASES.json`` contains ``prompts``, rows of token ids of one length; ``n_new``, the number of tokens to continue each
by; ``rows``, other rows of one length; ``texts`` to tokenize; and ``chats``, conversations that need an answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from transformers import AutoTokenizer

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
Cache = dict[str, NDArray[np.float32]]


def main(folder: str, cases_file: str, found_name: str) -> None:
    """Compute all outputs of the cases, and write them."""
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    graph = Graph(Path(folder, "onnx", "model.onnx"))
    np.save(f"{found_name}.npy", graph(np.array(cases["rows"]))[0])
    prompts = np.array(cases["prompts"])
    whole = graph.continued(prompts, cases["n_new"])
    n_before = prompts.shape[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # "</s>" in a user's text is ordinary text.
    text_ids = tokenizer(cases["texts"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    rendered = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for messages in cases["chats"]
    ]
    found = {
        "greedy": whole[:, n_before:].tolist(),
        "uncached": graph(whole[:, :-1])[0].argmax(-1)[:, n_before - 1 :].tolist(),
        "padding_difference": graph.padding_difference(prompts[:2]),
        "text_ids": text_ids,
        "decoded": tokenizer.batch_decode(text_ids),
        "chat_ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered],
    }
    Path(f"{found_name}.json").write_text(json.dumps(found), encoding="utf-8")


class Graph:
    """A graph that continues token ids."""

    def __init__(self, file: Path) -> None:
        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self._cached = {it.name: it.shape for it in self._session.get_inputs() if it.name.startswith("past_key_values")}

    def __call__(self, ids: Ids, mask: Ids | None = None, past: Cache | None = None) -> tuple[Logits, Cache]:
        """Return logits (B, T, V) of ids (B, T), and the cache with them; ``mask`` (B, S) is 0 for padding."""
        if past is None:
            past = {
                name: np.zeros((len(ids), n_heads, 0, width), np.float32)
                for name, (_, n_heads, _, width) in self._cached.items()
            }
        n_past = next(iter(past.values())).shape[2]
        mask = np.ones((len(ids), n_past + ids.shape[1]), np.int64) if mask is None else mask
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, n_past:]
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        logits, *present = self._session.run(["logits", *map(_present, past)], feed)
        return logits, dict(zip(past, present, strict=True))

    def continued(self, ids: Ids, n_new: int) -> Ids:
        """Return rows (B, T) with ``n_new`` more tokens each, the most likely ones, computed with the cache."""
        logits, past = self(ids)
        for i in range(n_new):
            new = logits[:, -1].argmax(-1)[:, None]
            ids = np.concatenate((ids, new), axis=1)
            if i + 1 < n_new:
                logits, past = self(new, past=past)
        return ids

    def padding_difference(self, ids: Ids) -> float:
        """Return the largest difference of the logits of a row alone and left-padded, beside a longer one."""
        half = ids.shape[1] // 2
        padded, mask = ids.copy(), np.ones_like(ids)
        padded[0, :half] = mask[0, :half] = 0
        beside, alone = self(padded, mask)[0][0, half:], self(ids[:1, half:])[0][0]
        return float(np.abs(beside - alone).max())


def _present(name: Any) -> str:
    """Return the name of the output that continues an input of the cache."""
    return str(name).replace("past_key_values", "present")


if __name__ == "__main__":
    main(*sys.argv[1:])
