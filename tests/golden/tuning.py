"""Write ``tuning.safetensors``: what PEFT and TRL compute, for ``test_lora.py``, ``test_dpo.py`` and ``test_grpo.py``.

It needs an environment of its own: ``uv run --with peft --with trl python tests/golden/tuning.py``. The file was
written with PEFT 0.21.2, TRL 1.16.0, transformers 5.23.0 and PyTorch 2.13.0 on a CPU.
"""

import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

HERE = Path(__file__).resolve().parent
IDS = torch.tensor([[2, 300, 310, 320, 330, 340], [3, 100, 2, 350, 360, 479]])
RANK = 3
PAIRS = torch.tensor([[2, 300, 310, 320, 330], [2, 301, 311, 0, 0], [2, 300, 310, 321, 2], [2, 301, 312, 322, 0]])
ANSWERS = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]])
"""Two better answers, then two worse ones, and where they are."""
BETA = 0.3


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


def dpo() -> dict[str, torch.Tensor]:
    """The loss of two pairs, and its gradient at the output head; the model is moved a little from the reference."""
    folder = HERE / "mame-exported" / "hf"
    model, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.sin(torch.arange(p.numel()).float()).view_as(p) / 20)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    with tempfile.TemporaryDirectory() as out:
        trainer = DPOTrainer(
            model,
            reference,
            DPOConfig(out, beta=BETA, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False),
            train_dataset=Dataset.from_list([{"prompt": "犬", "chosen": "は", "rejected": "が"}]),
            processing_class=tokenizer,
        )
        is_token = (PAIRS != 0).long()
        batch = {"input_ids": PAIRS, "attention_mask": is_token, "completion_mask": ANSWERS}
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    gradient = model.get_output_embeddings().weight.grad
    return {"dpo|loss": loss.detach(), "dpo|gradient": gradient}


def grpo(kl_beta: float) -> dict[str, torch.Tensor]:
    """The loss of two groups of two answers, and its gradient at the output head; the model is moved as in `dpo`."""
    folder = HERE / "mame-exported" / "hf"
    model, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.sin(torch.arange(p.numel()).float()).view_as(p) / 20)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    grouped = [0, 2, 1, 3]  # the two answers of a question follow each other
    # What is read before the answers is 3 or 2 tokens: TRL's prompts are padded at their beginning.
    prompts = torch.tensor([[2, 300, 310], [2, 300, 310], [0, 2, 301], [0, 2, 301]])
    answers = [row[mask.bool()] for row, mask in zip(PAIRS[grouped], ANSWERS[grouped], strict=True)]
    completions = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True)
    is_answer = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in answers], batch_first=True)
    rewards = torch.tensor([[1.0, 0.0], [0.2, 0.7]])
    worth = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model,
            lambda **_: [0.0],
            GRPOConfig(out, beta=kl_beta, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False),
            train_dataset=Dataset.from_list([{"prompt": "犬"}]),
            processing_class=tokenizer,
        )
        batch = {
            "prompt_ids": prompts,
            "prompt_mask": (prompts != 0).long(),
            "completion_ids": completions,
            "completion_mask": is_answer,
            "advantages": worth.flatten(),
            "num_items_in_batch": is_answer.sum(),
        }
        ids, mask = torch.cat((prompts, completions), 1), torch.cat((batch["prompt_mask"], is_answer), 1)
        with torch.no_grad():
            logits = reference(ids, attention_mask=mask).logits[:, prompts.shape[1] - 1 : -1]
        batch["ref_per_token_logps"] = logits.log_softmax(-1).gather(2, completions[:, :, None]).squeeze(2)
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
    gradient = model.get_output_embeddings().weight.grad
    return {f"grpo|{kl_beta}|loss": loss.detach(), f"grpo|{kl_beta}|gradient": gradient}


if __name__ == "__main__":
    found = lora() | dpo() | grpo(0.0) | grpo(0.3)
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, HERE / "tuning.safetensors")
