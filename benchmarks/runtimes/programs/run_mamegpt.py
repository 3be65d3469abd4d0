"""mamegpt itself, the folder of ``hf``: the speed beside which the others stand."""

import torch
from measure import Continue, Encode, run

import mamegpt


def load(folder: str) -> tuple[Continue, Encode]:
    """Return ``stream_ids`` on one thread, and the tokenizer."""
    from mamegpt.generation.stream import stream_ids

    torch.set_num_threads(1)
    loaded = mamegpt.load(folder)

    def continued(ids: list[int], n_new: int) -> list[int]:
        return list(stream_ids(loaded.model, ids, n_new))

    def encode(_: list[str], normalized: list[str]) -> list[list[int]]:
        return loaded.tokenizer.encode_batch(normalized)

    return continued, encode


run("hf", load)
