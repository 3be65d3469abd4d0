"""PEFT: the folder of ``hf``, with a LoRA adapter on every linear layer."""

import torch
from measure import Continue, Encode, run
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: str) -> tuple[Continue, Encode]:
    """Return ``generate`` in float32 on one thread, and the folder's tokenizer."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")).eval()
    adapted.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def continued(ids: list[int], n_new: int) -> list[int]:
        rows = torch.tensor([ids])
        options = {"max_new_tokens": n_new, "do_sample": False, "pad_token_id": 0}
        return adapted.generate(input_ids=rows, attention_mask=torch.ones_like(rows), **options)[0, len(ids) :].tolist()

    def encode(texts: list[str], _: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    return continued, encode


run("hf", load)
