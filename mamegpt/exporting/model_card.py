"""The README.md of an exported folder, in Japanese with an English summary, from facts alone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.data.provenance import Provenance
from mamegpt.generation.settings import Sampling
from mamegpt.models.hf_format import HFFormat
from mamegpt.run.metrics import Quality
from mamegpt.system.files import is_here
from mamegpt.system.hub import is_hub_name
from mamegpt.text.display import sparkline, visible
from mamegpt.tokenizer.tokenizer import Tokenizer

__all__ = ["Facts", "model_card"]

_CARD = """\
---
language:
- ja
{license_tag}{library}pipeline_tag: text-generation
tags:
- mamegpt
- {tag}
---

# {name}

豆GPT (mamegpt) で{made}日本語の言語モデルです。

*A Japanese language model, {english_made} with mamegpt: {english}. It continues Japanese text and does not follow
instructions; what it writes may be wrong. The rows of the table below: architecture, parameters, layers / width /
heads, context length, tokenizer{english_rows}.*

## 使い方

{usage}

## モデル

| 項目 | 値 |
| --- | --- |
| 構造 | {structure} |
| パラメータ数 | {n_parameters:,} |
| 層 / 幅 / ヘッド | {n_layers} / {emb_dim} / {n_heads} |
| 文脈の長さ | {context_length} トークン |
| トークナイザ | {kind}、{vocab_size:,} 語彙、正規化 {normalizer}、バイトフォールバック{byte_fallback} |
{rows}{samples}
## 限界

文は日本語らしくても、内容は事実とは限りません。学習した文章の偏りを受け継ぎ、文章の一部をそのまま
書き出すことがあります。

## ライセンス

{license_text}

## 引用

{license_note}{data_source}
"""

_TRANSFORMERS = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}"{trust})
tokenizer = AutoTokenizer.from_pretrained("{name}"{trust})
inputs = tokenizer({begin}"昔々、", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens={n_new_tokens})[0], skip_special_tokens=True))
```

{start}{loading}"""

_START = """\
文章の書き出しは `tokenizer.bos_token` のあとに置きます(学習では、どの文章も前の文章の終わりに続いていました)。
文章の途中なら付けません。ほかの人が書いた文章は `tokenizer(文章, split_special_tokens=True)` で渡すと、文中の `</s>`
などの文字列がただの文字として読まれます。

"""

_REMOTE_CODE = """\
`trust_remote_code=True` は、このフォルダーの `{code}` を実行するという意味です。
豆GPT 自身の `mamegpt generate --model {name} --prompt "昔々、"` は、フォルダーのコードを実行せずに読み込みます。"""

_NATIVE = """\
transformers が元から持っている構造なので、フォルダーにコードはなく、`trust_remote_code` は要りません。
豆GPT 自身では `mamegpt generate --model {name} --prompt "昔々、"` です。"""

_GGUF = """\
llama.cpp と、それを使うプログラムが読み込みます(`pip install xllamacpp` など)。

```python
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = "{file}"
server = xllamacpp.Server(params)
answer = server.handle_completions({{"prompt": "{begin}昔々、", "max_tokens": {n_new_tokens}, "temperature": 0.0}})
print(answer["choices"][0]["text"])
```

llama.cpp は文章を正規化しません。プロンプトは NFC(Python では `unicodedata.normalize("NFC", 文章)`)にし、改行を LF に
そろえて渡してください。{start}"""

_GGUF_START = """
文章の書き出しは `{piece}` のあとに置きます(学習では、どの文章も前の文章の終わりのトークンのあとにありました)。
文章の途中なら付けません。"""

_WIKI40B = """

文章: Mandy Guo, Zihang Dai, Denny Vrandečić, Rami Al-Rfou, "Wiki-40B: Multilingual Language Model Dataset", LREC 2020,
<https://aclanthology.org/2020.lrec-1.297>(ウィキペディアの執筆者による、CC BY-SA)"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a model's training; what is not known is left out of the card.

    ``origins`` are the steps that made the text; ``elapsed_s`` is wall-clock time, ``losses`` has one of each step;
    ``evaluation`` has rows as `rows` gives them; ``samples`` are pairs of a prompt and its continuation, drawn as
    ``sampling`` says; ``licenses`` are those of the training text, as identifiers of the Hub.
    """

    config: TrainConfig | None = None
    step: int = 0
    elapsed_s: float = 0.0
    n_documents: int = 0
    n_characters: int = 0
    origins: Sequence[Provenance] = ()
    machine: str = ""
    losses: Sequence[float] = ()
    quality: Quality | None = None
    evaluation: Sequence[tuple[str, str, str]] = ()
    samples: Sequence[tuple[str, str]] = ()
    sampling: Sampling = Sampling()  # noqa: RUF009  (frozen)
    licenses: Sequence[str] = ()

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (what it is in Japanese, in English, its value in Markdown) for each that is known."""
        found = []
        if config := self.config:
            documents = f"({self.n_documents:,} 文書、{self.n_characters:,} 文字)" if self.n_documents else ""
            found.append(("学習した文章", "training text", f"{_names(config.data)}{documents}"))
            found += [("文章の選び方", "its selection", _selection(origin)) for origin in self.origins]
            if config.init_from:
                found.append(("出発点", "start", _public(config.init_from)))
            tokens = self.step * config.batch_size * config.context_length
            found.append(("学習", "training", f"{self.step:,} ステップ、{tokens:,} トークン"))
            found.append(
                ("方法", "recipe", f"{config.optimizer}、学習率 {config.lr:g}、{config.batch_size} × "
                 f"{config.context_length} トークン、減衰 {config.weight_decay:g}、{config.precision}")
            )  # fmt: skip
        if self.elapsed_s:
            found.append(("時間", "time", f"{self.elapsed_s:,.0f} 秒"))
        if self.machine:
            found.append(("マシン", "hardware", self.machine))
        if self.losses:
            curve = f"{sparkline(self.losses)} {self.losses[0]:.2f} → {self.losses[-1]:.2f}"
            found.append(("学習の損失", "training loss", curve))
        if quality := self.quality:
            bits = f"{quality.bits_per_character:.3f} ビット/文字、{quality.bits_per_byte:.3f} ビット/バイト"
            found.append(("検証", "validation", f"{bits}、損失 {quality.loss:.3f}({self._validated(quality)})"))
        return [(japanese, english, _prose(value)) for japanese, english, value in (*found, *self.evaluation)]

    def _validated(self, quality: Quality) -> str:
        """Return what a validation is of: of how much text, in which dtype, and of which step if not of the last."""
        share = "の標本" if quality.of_n_characters > quality.n_characters else ""
        earlier = f"、ステップ {quality.step:,} のとき" if quality.step not in (None, self.step) else ""
        dtype = f"、{quality.dtype}" if quality.dtype else ""
        return f"{quality.n_tokens:,} トークン{share}{dtype}{earlier}"


def _selection(origin: Provenance) -> str:
    """One step that a corpus was made with, and what it left out."""
    shown = {name: Path(value).name if is_here(value) else value for name, value in origin.settings.items()}
    settings = "、".join(f"{name} {value}" for name, value in shown.items())
    dropped = "、".join(f"{reason} {count:,}" for reason, count in origin.dropped.items() if count)
    told = (
        f"{origin.command}({settings}): {_names(origin.source)} の {origin.read:,} 文書から {origin.kept:,} 文書。"
        f"除いたもの: {dropped or 'なし'}"
    )
    return told


def _prose(text: str) -> str:
    """Return a text from outside as one line of Markdown, in a table's cell too, without HTML of its own."""
    return visible(html.escape(" ".join(text.split()), quote=False)).replace("|", "\\|")


def _code(text: str) -> str:
    """Return a name within a string of an example of code, or between backticks."""
    return visible(" ".join(text.split())).replace("`", "'").replace("\\", "\\\\").replace('"', '\\"')


def _names(source: str) -> str:
    """Return the public names of sources: names on the Hub, and the last parts of paths, without weights."""
    parts = [part.strip() for part in source.split(",")]
    return "、".join(_public(part.rpartition("@")[0] or part) for part in parts)


def _public(value: str) -> str:
    """Return a setting's value, of a path the last part only: how folders are called concerns nobody else."""
    is_path = "/" in value and (is_here(value) or not is_hub_name(value))
    return Path(value).name if is_path else value


def _license(facts: Facts) -> tuple[str, str]:
    """Return the ``license`` of the front matter, and what the card says of licenses: what is known, and no more."""
    tag = "".join(f"\n- {it}" for it in facts.licenses) if len(facts.licenses) > 1 else "".join(facts.licenses)
    text = f"学習に使った文章のライセンス: {'、'.join(facts.licenses)}。" if tag else (
        "学習に使った文章のライセンスは記録されていません。公開する前に確かめ、このカードに書いてください。"
    )  # fmt: skip
    if facts.config and facts.config.init_from:
        text += "もとのモデルのライセンスにも従ってください。"
        tag = ""  # that of another model is not ours to state
    return f"license: {tag or 'unknown'}\n".replace(": \n", ":\n"), text


def model_card(
    name: str,
    sizes: ModelConfig,
    n_parameters: int,
    tokenizer: Tokenizer,
    hf_format: HFFormat,
    facts: Facts,
    *,
    gguf_file: str = "",
) -> str:
    """Return the card of a folder of that format, or of one with a ``gguf_file``."""
    settings, code = tokenizer.settings, hf_format.remote_code
    rows = facts.rows()
    n_new_tokens = max(1, min(50, sizes.context_length // 2))  # prompt and answer must fit into the context
    begin = "" if tokenizer.start_id is None else tokenizer.piece(tokenizer.start_id)
    if gguf_file:
        usage = _GGUF.format(
            file=_code(gguf_file), n_new_tokens=n_new_tokens, begin=_code(begin),
            start=_GGUF_START.format(piece=_code(begin)) if begin else "",
        )  # fmt: skip
    else:
        usage = _TRANSFORMERS.format(
            name=_code(name),
            trust=", trust_remote_code=True" if code else "",
            n_new_tokens=n_new_tokens,
            start=_START if begin else "",
            begin="tokenizer.bos_token + " if begin else "",
            loading=_NATIVE.format(name=_code(name))
            if code is None
            else _REMOTE_CODE.format(name=_code(name), code=code.name),
        )
    start = facts.config.init_from if facts.config else ""
    samples = "".join(f"\n- **{_prose(prompt)}**{_prose(text)}" for prompt, text in facts.samples)
    sampling = facts.sampling
    how = f"temperature {sampling.temperature:g}、top-p {sampling.top_p:g}、シード {sampling.seed} から"
    license_tag, license_text = _license(facts)
    made, english_made = "書き出した", "exported"  # how it was trained is not known
    if facts.config:
        made, english_made = "ゼロから事前学習した、", "pretrained from scratch"
    if start:
        made, english_made = "ほかのモデルから学習を続けた、", "trained on from another model"
    return _CARD.format(
        name=_prose(name),
        tag="gguf" if gguf_file else hf_format.model_type,
        library="" if gguf_file else "library_name: transformers\n",
        usage=usage,
        made=made,
        english_made=english_made,
        license_tag=license_tag,
        license_text=license_text,
        english=f"{n_parameters:,} parameters, a context of {sizes.context_length} tokens",
        english_rows="".join(f", {english}" for _, english, _ in rows),
        structure=hf_format.structure(sizes),
        license_note=hf_format.license_note,
        data_source=_WIKI40B if facts.config and "wiki40b" in facts.config.data else "",
        n_parameters=n_parameters,
        n_layers=sizes.n_layers,
        emb_dim=sizes.emb_dim,
        n_heads=sizes.n_heads,
        context_length=sizes.context_length,
        vocab_size=sizes.vocab_size,
        kind=f"SentencePiece {settings.model_type}",
        normalizer=settings.normalizer,
        byte_fallback="あり" if settings.byte_fallback else "なし",
        rows="".join(f"| {japanese} | {value} |\n" for japanese, _, value in rows),
        samples=f"\n## 生成例({how})\n{samples}\n" if samples else "",
    )
