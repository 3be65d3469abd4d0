"""Train the book's small GPT on one text file: the original recipe, a constant learning rate and dropout.

python training.py --train-txt output_with_titles.txt --spm-model jp_tok_wiki.model \
    --out-weights hyper_small_jp_wiki.pth --context-length 256 --emb-dim 128 --n-layers 4 --n-heads 4 \
    --drop-rate 0.1 --batch-size 32 --max-steps 2000 --lr 3e-4

Stop it whenever you like: the same command goes on where it stopped. `mamegpt train` has a faster recipe.
"""

from pathlib import Path
from typing import Literal

import mamegpt


def main(
    train_txt: Path,
    spm_model: Path,
    out_weights: Path = Path("model.pth"),
    context_length: int = 256,
    emb_dim: int = 128,
    n_layers: int = 4,
    n_heads: int = 4,
    drop_rate: float = 0.1,
    qkv_bias: bool = False,
    batch_size: int = 32,
    max_steps: int = 2000,
    lr: float = 3e-4,
    device: Literal["cpu", "cuda"] | None = None,
    seed: int = 42,
    samples_per_epoch: int = 10000,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
) -> int:
    """Train a small GPT from scratch and write its weights, a plain state dict with the book's keys.

    Args:
        train_txt: Training data, UTF-8.
        spm_model: SentencePiece .model file.
        out_weights: Weights file to write. The run (metrics, checkpoints) is kept in runs/ in the same folder.
        context_length: Context length in tokens.
        emb_dim: Hidden size (embedding dimension).
        n_layers: Transformer blocks.
        n_heads: Attention heads in a block.
        drop_rate: Dropout rate.
        qkv_bias: Give the query, key and value projections a bias.
        batch_size: Batch size: sequences of --context-length tokens per step.
        max_steps: Training steps.
        lr: Learning rate, the same in every step.
        device: Where to compute (default: cuda if there is one, else cpu).
        seed: Random seed of initial weights, data order and dropout.
        samples_per_epoch: Sequences per epoch; after each, the data is reshuffled and a mean loss is reported.
        precision: Precision of matrix products; auto measures both, so name one for equal results on other machines.
    """
    return mamegpt.train_original(
        train_txt,
        spm_model,
        out_weights,
        context_length=context_length,
        emb_dim=emb_dim,
        n_layers=n_layers,
        n_heads=n_heads,
        drop_rate=drop_rate,
        qkv_bias=qkv_bias,
        batch_size=batch_size,
        max_steps=max_steps,
        lr=lr,
        device=device or "auto",
        seed=seed,
        samples_per_epoch=samples_per_epoch,
        precision=precision,
    )


if __name__ == "__main__":
    mamegpt.run_command_line(main)
