"""Write ``tuning.safetensors``: what PEFT computes, for `tests/training/test_lora.py`.

It needs an environment of its own: ``uv run --with peft --with transformers python tests/golden/tuning.py``. The file
was written with PEFT 0.21.2, transformers 5.23.0 and PyTorch 2.13.0 on a CPU.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
IDS = torch.tensor([[2, 300, 310, 320, 330, 340], [3, 100, 2, 350, 360, 479]])
RANK = 3


def lora() -> dict[str, torch.Tensor]:
    """Logits (B, T, V) with adapters, and the gradients of the adapters for the sum of their squares."""
    model = AutoModelForCausalLM.from_pretrained(HERE / "mame-exported" / "hf", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for i, p in enumerate(adapters.values()):
            p.copy_(torch.sin(torch.arange(p.numel()) + float(i)).view_as(p) / 4)
    logits = model(IDS).logits
    logits.square().sum().backward()
    found = {"logits": logits.detach()}
    for name, p in adapters.items():
        assert p.grad is not None
        own = name.removeprefix("base_model.model.").replace(".default.weight", "")
        found |= {f"{own}|value": p.detach(), f"{own}|gradient": p.grad}
    with torch.no_grad():
        found["merged"] = model.merge_and_unload()(IDS).logits
    return found


if __name__ == "__main__":
    save_file({name: tensor.contiguous() for name, tensor in lora().items()}, HERE / "tuning.safetensors")
