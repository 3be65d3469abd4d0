"""transformers, 5 or 4: the folder of ``hf``."""

import torch
from measure import Continue, Encode, run
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: str) -> tuple[Continue, Encode]:
    """Return ``generate`` with its cache in float32 on one thread, and the folder's tokenizer."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def continued(ids: list[int], n_new: int) -> list[int]:
        rows = torch.tensor([ids])
        options = {"max_new_tokens": n_new, "do_sample": False, "pad_token_id": 0}
        return model.generate(rows, attention_mask=torch.ones_like(rows), **options)[0, len(ids) :].tolist()

    def encode(texts: list[str], _: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    return continued, encode


run("hf", load)
