"""Make a folder of weights and tokenizer that transformers loads, and check it before saying so.

python export_to_hf.py --weights hyper_small_jp_wiki.pth --spm_model jp_tok_wiki.model \
    --spm_vocab jp_tok_wiki.vocab --out_dir hf_jp_gpt_wiki --context_length 256 --emb_dim 128 \
    --n_layers 4 --n_heads 4 --drop_rate 0.1 --qkv_bias False --fast
"""

from pathlib import Path

import mamegpt


def main(
    weights: Path,
    spm_model: Path,
    spm_vocab: Path | None = None,
    out_dir: Path = Path("hf_jp_gpt_wiki"),
    context_length: int | None = None,
    emb_dim: int | None = None,
    n_layers: int | None = None,
    n_heads: int | None = None,
    drop_rate: float = 0.1,
    qkv_bias: bool | None = None,
    vocab_size: int | None = None,
    fast: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a folder for AutoModelForCausalLM.from_pretrained(out_dir, trust_remote_code=True).

    Args:
        weights: Weights file (.pth, .bin or .safetensors), a state dict.
        spm_model: SentencePiece .model file the weights were trained with.
        spm_vocab: Its .vocab file (default: written from the model).
        out_dir: Folder to write.
        context_length: Context length in tokens (default: read from the weights).
        emb_dim: Hidden size (default: read from the weights).
        n_layers: Transformer blocks (default: read from the weights).
        n_heads: Attention heads in a block; not stored in the weights (default: 4).
        drop_rate: Dropout rate if the model is trained further.
        qkv_bias: Whether query, key and value projections have a bias (default: read from the weights).
        vocab_size: Vocabulary size (default: read from the weights).
        fast: Recorded in config.json; there is one backbone, the book's fast one.
        overwrite: Replace a folder of that name when the new one is complete.
    """
    with mamegpt.show_export() as on_event:
        report = mamegpt.export_weights(
            weights,
            spm_model,
            out_dir,
            spm_vocab=spm_vocab,
            fast=fast,
            overwrite=overwrite,
            context_length=context_length,
            emb_dim=emb_dim,
            n_layers=n_layers,
            n_heads=n_heads,
            drop_rate=drop_rate,
            qkv_bias=qkv_bias,
            vocab_size=vocab_size,
            on_event=on_event,
        )
    mamegpt.show("[OK] Exported to {out} and verified in a separate process", out=report.out)


if __name__ == "__main__":
    mamegpt.run_command_line(main)
