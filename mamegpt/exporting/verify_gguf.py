"""Run llama.cpp on a GGUF file, in a process of its own, with the package xllamacpp only.

    python verify_gguf.py FILE CASES.json FOUND

`check_gguf` runs it on each exported file, before the file gets its name, and reads ``FOUND.json``. It must not import
mamegpt. It asks llama.cpp's own server, on a free port of the loopback interface.

``CASES.json`` contains ``prompts``, rows of token ids; ``n_new``, the number of tokens to continue each by;
``beginnings``, rows after which the log-probabilities of all ``vocab_size`` tokens are wanted; ``n_context``;
``shown``, the id of a token that is whole characters; ``texts`` to tokenize; ``chats``, conversations that need an
answer; ``asked``, those that leave room for one, as token ids; ``decode``, ids to decode; and ``separator``, an id that
is in no text.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp

TEXTS_AT_ONCE = 500
GREEDY = {"temperature": 0.0, "samplers": ["temperature"], "cache_prompt": False, "return_tokens": True}


def main(file: str, cases_file: str, found_name: str) -> None:
    """Ask the server for all outputs of the cases, and write them."""
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    server = serve(file, cases["n_context"])

    def ask(path: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return json.load(answer)

    found: dict[str, Any] = {"log_probabilities": [], "uncached": []}
    for beginning in cases["beginnings"]:
        # The server returns no probabilities with the end of a text or a part of a character, so it is made to choose
        # another token; the probabilities that it returns are the model's own.
        body = {"prompt": beginning, "n_predict": 1, "n_probs": cases["vocab_size"]}
        answer = ask("/completion", **body, logit_bias=[[cases["shown"], 1e6]], **GREEDY)
        log_probabilities = [0.0] * cases["vocab_size"]
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            log_probabilities[entry["id"]] = entry["logprob"]
        found["log_probabilities"].append(log_probabilities)
    prompts = cases["prompts"]
    found["greedy"], found["answers"] = (
        [ask("/completion", prompt=ids, n_predict=cases["n_new"], **GREEDY)["tokens"] for ids in rows]
        for rows in (prompts, cases["asked"])
    )
    for ids, new in zip(prompts, found["greedy"], strict=True):
        # The last token again, from one pass over all tokens before it.
        last = ask("/completion", prompt=ids + new[:-1], n_predict=1, **GREEDY)["tokens"] if new else []
        found["uncached"].append(new[:-1] + last)

    found["text_ids"] = []
    for start in range(0, len(cases["texts"]), TEXTS_AT_ONCE):
        texts = cases["texts"][start : start + TEXTS_AT_ONCE]
        content = [part for text in texts for part in (text, cases["separator"])]
        row: list[int] = []
        for token in ask("/tokenize", content=content, add_special=False, parse_special=False)["tokens"]:
            if token == cases["separator"]:
                found["text_ids"].append(row)
                row = []
            else:
                row.append(token)
    found["chat_ids"] = []
    for messages in cases["chats"]:
        text = ask("/apply-template", messages=messages)["prompt"]
        found["chat_ids"].append(ask("/tokenize", content=text, add_special=False, parse_special=True)["tokens"])
    found["decoded"] = [ask("/detokenize", tokens=ids)["content"] for ids in cases["decode"]]
    Path(f"{found_name}.json").write_text(json.dumps(found), encoding="utf-8")


def serve(file: str, n_context: int) -> Any:
    """Start llama.cpp on one file: one thread, one text at a time, keys and values in float32."""
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx = n_context + 1  # it stops one token before the end
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity = -1
    params.use_jinja = True
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main(*sys.argv[1:])
