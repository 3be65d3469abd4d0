"""xllamacpp, llama.cpp's server in Python: the GGUF file in float32."""

import json
import urllib.request
from typing import Any

import xllamacpp
from measure import Continue, Encode, run


def load(file: str) -> tuple[Continue, Encode]:
    """Return the server's routes ``/completion`` and ``/tokenize``, on one thread with keys and values in float32."""
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 256, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def ask(path: str, **body: object) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def continued(ids: list[int], n_new: int) -> list[int]:
        greedy = {"temperature": 0.0, "samplers": ["temperature"], "ignore_eos": False, "return_tokens": True}
        return ask("/completion", prompt=ids, n_predict=n_new, cache_prompt=False, **greedy)["tokens"]

    def encode(_: list[str], normalized: list[str]) -> list[list[int]]:
        return [ask("/tokenize", content=it, add_special=False, parse_special=False)["tokens"] for it in normalized]

    return continued, encode


run("gguf", load)
