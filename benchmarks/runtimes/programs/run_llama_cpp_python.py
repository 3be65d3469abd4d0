"""llama-cpp-python: the GGUF file in float32."""

import llama_cpp
from measure import Continue, Encode, run


def load(file: str) -> tuple[Continue, Encode]:
    """Return ``generate`` on one thread with keys and values in float32."""
    kind = llama_cpp.GGML_TYPE_F32
    model = llama_cpp.Llama(file, n_ctx=256, n_threads=1, n_threads_batch=1, type_k=kind, type_v=kind, verbose=False)

    def continued(ids: list[int], n_new: int) -> list[int]:
        new = model.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True)
        return [next(new) for _ in range(n_new)]

    def encode(_: list[str], normalized: list[str]) -> list[list[int]]:
        return [model.tokenize(text.encode(), add_bos=False, special=False) for text in normalized]

    return continued, encode


run("gguf", load)
