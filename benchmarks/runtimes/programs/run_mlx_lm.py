"""mlx-lm, here on Linux and a CPU: the folder of ``hf``."""

import mlx.core as mx
from measure import Continue, Encode, run
from mlx_lm import load as load_folder
from mlx_lm.generate import generate_step


def load(folder: str) -> tuple[Continue, Encode]:
    """Return ``generate_step``, and the tokenizer that mlx-lm takes from transformers."""
    model, tokenizer = load_folder(folder)

    def continued(ids: list[int], n_new: int) -> list[int]:
        return [int(token) for token, _ in generate_step(mx.array(ids), model, max_tokens=n_new)]

    def encode(texts: list[str], _: list[str]) -> list[list[int]]:
        return [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]

    return continued, encode


run("hf", load)
