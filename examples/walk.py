"""One text on its way from a corpus to what a model expects next, with real values: ``python examples/walk.py``."""

import json
import tempfile
from pathlib import Path

import torch

import mamegpt
from mamegpt.data.shards import open_shards, write_shards
from mamegpt.data.window_order import WindowOrder
from mamegpt.models.registry import build_model
from mamegpt.text.folding import fold, matches
from mamegpt.text.normalize import normalize

ROW = "_START_ARTICLE_\n月見町_START_PARAGRAPH_\nある春の朝、ﾌﾐはﾕｷｵに豆をわたした。_NEWLINE_ユキオはわらった。"


def walk(folder: Path) -> list[tuple[str, object]]:
    """Return (where, value) for each step of the pipeline; files are written below ``folder``."""
    corpus = folder / "row.jsonl"
    corpus.write_text(json.dumps({"text": ROW}), encoding="utf-8")
    (document,) = mamegpt.read_documents(corpus)
    (text,) = mamegpt.read_texts(corpus)
    stories = folder / "stories.txt"
    mamegpt.write_stories(stories, 300, seed=1)
    learned = mamegpt.train_tokenizer(mamegpt.read_texts(stories), folder / "beans", vocab_size=1000)
    tokenizer = mamegpt.Tokenizer.load(learned.path)
    ids = tokenizer.encode(text)
    meta = write_shards(folder / "tokens", {"train": [text]}, tokenizer)
    _, splits = open_shards(folder / "tokens", tokenizer)
    inputs, targets = WindowOrder(len(splits["train"].tokens), context_length=8, batch_size=1, seed=42).batch(
        splits["train"].tokens, step=0
    )
    torch.manual_seed(42)
    sizes = mamegpt.TrainConfig(context_length=8, emb_dim=16, n_layers=2, n_heads=2, drop_rate=0.0).model(1000)
    model = build_model("qwen3", sizes)
    with torch.no_grad():
        hidden = model.hidden(torch.from_numpy(inputs))
        logits = model.out_head(hidden)
        loss = torch.nn.functional.cross_entropy(logits[0], torch.from_numpy(targets)[0])
    return [
        ("a row of the corpus", ROW),
        ("read_documents", document),
        ("text.folding.matches, フミ", matches(document.text, fold("フミ"))),
        ("text.normalize.normalize", normalize(text)),
        ("tokenizer.encode", ids),
        ("their subwords", [tokenizer.piece(i) for i in ids]),
        ("tokenizer.decode == text", tokenizer.decode(ids) == text),
        ("data.shards.write_shards", f"{meta.dtype}, {meta.splits['train'].n_tokens} tokens with the end-of-text id"),
        ("data.window_order, inputs", inputs.tolist()),
        ("targets, one token later", targets.tolist()),
        ("model.hidden (B, T, C)", tuple(hidden.shape)),
        ("model.out_head (B, T, V)", tuple(logits.shape)),
        ("loss of a fresh model", f"{loss:.2f} nats per token = ln 1000: all tokens are equally likely"),
    ]


def table(rows: list[tuple[str, object]]) -> str:
    """Return the steps as lines; values that are not strings, or have several lines, by their `repr`."""
    shown = [(where, value if isinstance(value, str) and "\n" not in value else repr(value)) for where, value in rows]
    return "\n".join(f"{where:<31}{value}" for where, value in shown)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(table(walk(Path(folder))))
