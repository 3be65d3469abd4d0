"""The README.md of an exported folder, in Japanese, from facts alone."""

from __future__ import annotations

from mamegpt.config import ModelConfig
from mamegpt.evaluate import Quality
from mamegpt.layouts import LAYOUTS
from mamegpt.tokenizer import Tokenizer

__all__ = ["model_card"]

_CARD = """\
---
language:
- ja
library_name: transformers
pipeline_tag: text-generation
tags:
- mamegpt
- {architecture}
---

# {name}

豆GPT (mamegpt) でゼロから事前学習した、小さな日本語の言語モデルです。

## 使い方

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}"{trust})
tokenizer = AutoTokenizer.from_pretrained("{name}"{trust})
inputs = tokenizer("昔々、", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens={n_new_tokens})[0]))
```

{loading}

## モデル

| 項目 | 値 |
| --- | --- |
| 構造 | {structure} |
| パラメータ数 | {n_parameters:,} |
| 層 / 幅 / ヘッド | {n_layers} / {emb_dim} / {n_heads} |
| 文脈の長さ | {context_length} トークン |
| トークナイザ | {kind}、{vocab_size:,} 語彙、正規化 {normalizer}、バイトフォールバック{byte_fallback} |
{training}
## 限界

小さなモデルです。文は日本語らしくても、内容は事実とは限りません。学習した文章の偏りを受け継ぎ、文章の一部をそのまま
書き出すことがあります。

## ライセンス

{licence}学習に使った文章のライセンスに従ってください。
"""

_REMOTE_CODE = """\
`trust_remote_code=True` は、このフォルダの `modeling_custom_gpt.py` を実行するという意味です。
豆GPT 自身の `mamegpt generate --model {name} --prompt "昔々、"` は、フォルダのコードを実行せずに読み込みます。"""

_NATIVE = """\
transformers が元から持っている構造なので、フォルダにコードはなく、`trust_remote_code` は要りません。
豆GPT 自身では `mamegpt generate --model {name} --prompt "昔々、"` です。"""


def model_card(
    name: str,
    sizes: ModelConfig,
    n_parameters: int,
    tokenizer: Tokenizer,
    architecture: str = "custom-gpt",
    *,
    data: str = "",
    step: int = 0,
    n_tokens: int = 0,
    quality: Quality | None = None,
) -> str:
    """The card's text. ``data``, ``step`` and ``n_tokens`` (seen in training) are left out where not known."""
    rows = []
    if data:
        rows.append(f"| 学習した文章 | {data} |")
    if step:
        rows.append(f"| 学習 | {step:,} ステップ、{n_tokens:,} トークン |")
    if quality:
        rows.append(
            f"| 検証 | {quality.bits_per_character:.3f} ビット/文字、{quality.bits_per_byte:.3f} ビット/バイト、"
            f"損失 {quality.loss:.3f}({quality.n_tokens:,} トークン) |"
        )
    settings = tokenizer.settings
    layout = LAYOUTS[architecture]
    return _CARD.format(
        name=name,
        architecture=architecture,
        trust=", trust_remote_code=True" if layout.remote_code else "",
        loading=(_REMOTE_CODE if layout.remote_code else _NATIVE).format(name=name),
        structure=layout.structure(sizes),
        licence=layout.licence,
        n_parameters=n_parameters,
        n_new_tokens=max(1, min(50, sizes.context_length // 2)),  # prompt and answer must fit into the context
        n_layers=sizes.n_layers,
        emb_dim=sizes.emb_dim,
        n_heads=sizes.n_heads,
        context_length=sizes.context_length,
        vocab_size=sizes.vocab_size,
        kind=f"SentencePiece {settings.model_type}",
        normalizer=settings.normalizer,
        byte_fallback="あり" if settings.byte_fallback else "なし",
        training="".join(f"{row}\n" for row in rows),
    )
