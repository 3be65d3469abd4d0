"""The README.md of an exported folder, in Japanese with English labels and summary, made from known facts only."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from mamegpt.config import ModelConfig, TrainConfig, TuneConfig
from mamegpt.data.address import public_parts
from mamegpt.data.provenance import Provenance
from mamegpt.generation.settings import Sampling
from mamegpt.messages import Message, translate
from mamegpt.models.hf_format import HFFormat
from mamegpt.run.metrics import Quality
from mamegpt.system.files import is_here
from mamegpt.system.hub import is_hub_name
from mamegpt.text.display import sparkline, visible
from mamegpt.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["Facts", "card_rows", "model_card", "public_names"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Known facts about the training of a model; unknown ones are left out of the card.

    ``origins`` are the steps that made the text; ``elapsed_s`` is wall-clock time; ``losses`` has one value per step;
    ``evaluation`` has rows like those of `rows`, ``results`` the same scores for the Hub's index; ``samples`` are pairs
    of a prompt and its continuation, generated with ``sampling``; ``licenses`` are those of the training text, as
    identifiers of the Hub; ``datasets`` are its datasets on the Hub; ``base_model`` is the model on the Hub that
    training started from.
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
    results: Sequence[EvalResult] = ()
    samples: Sequence[tuple[str, str]] = ()
    sampling: Sampling = Sampling()  # noqa: RUF009  (frozen)
    licenses: Sequence[str] = ()
    datasets: Sequence[str] = ()
    base_model: str = ""

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (label in Japanese, label in English, value) for each known fact."""
        found = []
        if config := self.config:
            documents = f"({self.n_documents:,} 文書、{self.n_characters:,} 文字)" if self.n_documents else ""
            found.append(("学習データ", "training data", f"{public_names(config.data)}{documents}"))
            found += [("データの選び方", "data selection", _selection(origin)) for origin in self.origins]
            if config.init_from:
                found.append(("元のモデル", "base model", _public(config.init_from)))
            tokens = self.step * config.batch_size * config.context_length
            length, batch = f"、{tokens:,} トークン", f"{config.batch_size} × {config.context_length} トークン"
            if isinstance(config, TuneConfig):
                length, batch = "、答えのトークンだけ", f"{config.batch_size} 会話"
                if config.task == "classify":
                    length, batch = "、最後のトークンに分類の出力層", f"{config.batch_size} テキスト"
                if config.task == "dpo":
                    length, batch = f"、DPO(β {config.dpo_beta:g})", f"{config.batch_size} 組"
                if config.task == "grpo":
                    length = f"、GRPO(報酬 {Path(config.reward).name}、KL の重み {config.kl_beta:g})"
                    batch = f"{config.batch_size} 問 × {config.group_size} 個の答え"
                if config.lora:
                    length += f"、LoRA(ランク {config.lora})"
                if config.text_share:
                    batch += f"、損失の {config.text_share:.0%} は元のテキスト"
            found.append(("学習", "training", f"{self.step:,} ステップ{length}"))
            found.append(
                (
                    "学習設定",
                    "recipe",
                    f"{config.optimizer}、学習率 {config.lr:g}、{batch}、"
                    f"重み減衰 {config.weight_decay:g}、{config.precision}",
                )
            )
        if self.elapsed_s:
            found.append(("時間", "time", f"{self.elapsed_s:,.0f} 秒"))
        if self.machine:
            found.append(("マシン", "hardware", self.machine))
        if self.losses:
            curve = f"{sparkline(self.losses)} {self.losses[0]:.2f} → {self.losses[-1]:.2f}"
            found.append(("学習損失", "training loss", curve))
        if (quality := self.quality) and quality.has_bits:
            bits = f"{quality.bits_per_character:.3f} ビット/文字、{quality.bits_per_byte:.3f} ビット/バイト"
            of = (
                ("検証(答え)", "validation, answers") if isinstance(self.config, TuneConfig) else ("検証", "validation")
            )
            found.append((*of, f"{bits}、損失 {quality.loss:.3f}({self._validated(quality)})"))
        if quality and quality.margin is not None:
            pairs = f"良い方の答えの報酬の方が高い組 {quality.accuracy:.1%}、報酬の差 {quality.margin:.3f}"
            found.append(("検証(答えの組)", "validation, pairs of answers", f"{pairs}({quality.n_tokens:,} 組)"))
        if quality and quality.reward is not None:
            rewarded = f"報酬の平均 {quality.reward:.3f}、元のモデルからの KL {quality.kl:.4f}"
            found.append(("検証(答えの報酬)", "validation, rewards of answers", f"{rewarded}({quality.n_tokens:,} 問)"))
        return [*found, *self.evaluation]

    def _validated(self, quality: Quality) -> str:
        """Describe a validation: how much text, in which dtype, and after which step if it is not the last."""
        share = "のサンプル" if quality.of_n_characters > quality.n_characters else ""
        earlier = f"、ステップ {quality.step:,} のとき" if quality.step not in (None, self.step) else ""
        dtype = f"、{quality.dtype}" if quality.dtype else ""
        return f"{quality.n_tokens:,} トークン{share}{dtype}{earlier}"


def _selection(origin: Provenance) -> str:
    """Describe one step that made a corpus, with the documents it dropped."""
    shown = {name: Path(value).name if is_here(value) else value for name, value in origin.settings.items()}
    settings = "、".join(f"{name} {value}" for name, value in shown.items())
    dropped = "、".join(f"{translate(Message(reason), 'ja')} {n:,}" for reason, n in origin.dropped.items() if n)
    return (
        f"{origin.command}({settings}): {public_names(origin.source)} の {origin.read:,} 文書から "
        f"{origin.kept:,} 文書。除外した文書: {dropped or 'なし'}"
    )


class _Markdown(str):
    """Text that already is Markdown."""


_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
"""Characters that are markup within a line of Markdown; a name such as ``wiki40b_ja`` is not emphasized."""
_BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uff60])\s*\n\s*(?=[\u3000-\u9fff\uff00-\uff60])")
"""A line break between Japanese characters, which would become a blank."""


def _prose(value: object) -> str:
    """Return a value as one line of Markdown that shows it literally, also in a table; `_Markdown` stays as it is."""
    if isinstance(value, _Markdown):
        return value
    return _SPECIAL.sub(r"\\\g<0>", html.escape(_line(str(value)), quote=False))


def _code(text: str) -> _Markdown:
    """Return a text to be shown between backticks, where Markdown knows no escapes."""
    return _Markdown(_line(text).replace("`", "'"))


def _string(text: str) -> _Markdown:
    """Return the inside of a string in double quotes, in example code."""
    return _Markdown(_code(text).replace("\\", "\\\\").replace('"', '\\"'))


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


@cache
def _templates() -> Environment:
    """Return the templates, which escape all values, unless a filter says otherwise."""
    templates = Environment(
        loader=PackageLoader("mamegpt.exporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=_prose,
    )
    templates.filters |= {"code": _code, "markdown": _Markdown, "string": _string}
    return templates


def public_names(source: str) -> str:
    """Return the public names of sources: names on the Hub, and the last parts of paths, without weights."""
    listed, begin, split = source.rpartition(" (") if source.endswith(")") else (source, "", "")
    return "、".join(public_parts(listed)) + begin + split


def _public(value: str) -> str:
    """Return the value of a setting, with only the last part of a path: names of the user's folders stay private."""
    is_path = "/" in value and (is_here(value) or not is_hub_name(value))
    return Path(value).name if is_path else value


def _front_matter(name: str, tag: str, library: str | None, facts: Facts, *, is_classifier: bool) -> str:
    """Return the metadata that the Hub reads, as YAML; unknown facts are left out."""
    from huggingface_hub import ModelCardData

    # We do not state the license of another model.
    licenses = [] if facts.config and facts.config.init_from else list(facts.licenses)
    data = ModelCardData(
        base_model=facts.base_model or None,
        datasets=list(facts.datasets) or None,
        language=["ja"],
        library_name=library,
        license=licenses if len(licenses) > 1 else next(iter(licenses), "unknown"),  # type: ignore[arg-type]
        pipeline_tag="text-classification" if is_classifier else "text-generation",
        tags=["mamegpt", tag],
        model_name=_line(name) if facts.results else None,
        eval_results=list(facts.results) or None,
    )
    return data.to_yaml()


def card_rows(
    sizes: ModelConfig, n_parameters: int, tokenizer: Tokenizer, hf_format: HFFormat, facts: Facts
) -> list[tuple[str, str, str]]:
    """Return (label in Japanese, label in English, value) for everything known about a model."""
    settings = tokenizer.settings
    byte_fallback = "あり" if settings.byte_fallback else "なし"
    return [
        ("アーキテクチャ", "architecture", hf_format.structure(sizes)),
        ("パラメータ数", "parameters", f"{n_parameters:,}"),
        (
            "層数、埋め込み次元、ヘッド数",
            "layers, hidden size, heads",
            f"{sizes.n_layers} / {sizes.emb_dim} / {sizes.n_heads}",
        ),
        ("コンテキスト長", "context length", f"{sizes.context_length} トークン"),
        (
            "トークナイザ",
            "tokenizer",
            f"SentencePiece {settings.model_type}、語彙サイズ {sizes.vocab_size:,}、"
            f"正規化 {settings.normalizer}、バイトフォールバック{byte_fallback}",
        ),
        *facts.rows(),
    ]


def model_card(
    name: str,
    sizes: ModelConfig,
    n_parameters: int,
    tokenizer: Tokenizer,
    hf_format: HFFormat,
    facts: Facts,
    *,
    gguf_file: str = "",
    html_file: str = "",
    is_onnx: bool = False,
    answers: bool = False,
    labels: Sequence[str] = (),
) -> str:
    """Return the card of a folder in that format, or of one with a ``gguf_file``, an ``html_file`` or an ONNX graph.

    ``answers`` says that the model was tuned to answer; one that was tuned to classify has ``labels``.
    """
    settings = tokenizer.settings
    tag = "gguf" if gguf_file else "html" if html_file else "onnx" if is_onnx else hf_format.model_type
    library = None if gguf_file or html_file else "transformers.js" if is_onnx else "transformers"
    is_continued = bool(facts.config and facts.config.init_from)
    made, english_made = "エクスポートした", "exported"  # how it was trained is not known
    if facts.config:
        made, english_made = "ゼロから事前学習した、", "pretrained from scratch"
    if is_continued:
        made, english_made = "既存のモデルから継続学習した、", "pretrained further from another model"
    if facts.config and facts.config.task == "classify":
        made, english_made = "既存のモデルをラベル付きのテキストでチューニングした、", "tuned on texts with labels"
    elif facts.config and facts.config.task == "dpo":
        made = "既存のモデルを良い答えと悪い答えの組でチューニングした(DPO)、"
        english_made = "tuned on pairs of a better and a worse answer (DPO)"
    elif facts.config and facts.config.task == "grpo":
        made = "既存のモデルを、その答えへの報酬でチューニングした(GRPO)、"
        english_made = "tuned on rewards for its own answers (GRPO)"
    elif isinstance(facts.config, TuneConfig):
        made, english_made = "既存のモデルを会話データでチューニングした、", "tuned on conversations"
    model = shlex.quote(_line(name).replace("`", "'"))  # between backticks there are no others
    call = f'chat --model {model} --prompt "こんにちは"' if answers else f'generate --model {model} --prompt "昔々、"'
    if labels:
        call = f'classify --model {model} --text "とてもおいしかった。"'
    return (
        _templates()
        .get_template("model_card.md.jinja")
        .render(
            front_matter=_Markdown(_front_matter(name, tag, library, facts, is_classifier=bool(labels))),
            name=name,
            made=made,
            english_made=english_made,
            answers=answers,
            labels=labels,
            command=f"mamegpt {call}",
            sizes=sizes,
            n_parameters=f"{n_parameters:,}",
            rows=card_rows(sizes, n_parameters, tokenizer, hf_format, facts),
            gguf_file=gguf_file,
            html_file=html_file,
            is_onnx=is_onnx,
            code_file=hf_format.remote_code.name if hf_format.remote_code else "",
            start="" if tokenizer.start_id is None else tokenizer.piece(tokenizer.start_id),
            n_new_tokens=max(1, min(50, sizes.context_length // 2)),  # prompt and answer must fit into the context
            has_byte_fallback=settings.byte_fallback,
            samples=[(prompt, _BREAK.sub("", text)) for prompt, text in facts.samples],
            sampling=facts.sampling,
            licenses=facts.licenses,
            is_continued=is_continued,
            license_note=hf_format.license_note,
            is_wiki40b=bool(facts.config and "wiki40b" in facts.config.data),
        )
    )
