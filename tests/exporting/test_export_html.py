"""HTML files: what is in them, and that their engine computes, samples and tokenizes as we do, or the export fails."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import EVERY, VARIANTS, model_of, sizes, supported
from html_tags import Tags
from little import N_SENTENCES, Little, export_here, random_model, sizes_for
from tokenizer_texts import EDGE_CASES, story_lines, train_directly

from mamegpt.data.stories import stories
from mamegpt.errors import ConfigError, ExportError
from mamegpt.exporting import html
from mamegpt.exporting.html import write_html
from mamegpt.exporting.publish import export
from mamegpt.exporting.verify_html import Browser, Page, find_browser
from mamegpt.generation.samplers import penalise_repetition, probabilities
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import prompt_ids
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES
from mamegpt.playground.words import words
from mamegpt.pretrained import Pretrained
from mamegpt.system.files import make_scratch
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import Message
from mamegpt.tokenizer.tokenizer import Tokenizer

CHROMIUM = find_browser()
IN_A_BROWSER = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
CHAT_CHECKS = ["chat template", "answers"]
CHECKS = ["rounding", "page", "logits", "greedy", "tokenizer", "round trip"]
OTHERS = sorted({*ARCHITECTURES} - {"qwen3"})
HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> & \" ' \u202e"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(CHROMIUM, str(tmp_path_factory.mktemp("profile"))) as started:
        yield started


def loaded(model: LanguageModel, tokenizer: Tokenizer, sizes: Any, architecture: str, **more: Any) -> Pretrained:
    return Pretrained(model, tokenizer, sizes, architecture, "a model in memory", **more)


def little_model(little: Little, tokenizer: Tokenizer | None = None, **changed: Any) -> Pretrained:
    tokenizer = tokenizer or little.tokenizer
    few = sizes_for(tokenizer, **changed)
    return loaded(random_model(few, architecture="qwen3", spread=0.1), tokenizer, few, "qwen3", has_start=True)


def written(folder: Path, model: Pretrained, name: str = "豆", kind: Any = "q8_0") -> Path:
    file = folder / "page.html"
    write_html(file, model, name, [("項目", "item", name)], ["cc-by-sa-4.0"], kind)
    return file


@pytest.fixture(scope="module")
def page(little: Little, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a model with a context of 24 tokens."""
    return browser.open(written(tmp_path_factory.mktemp("page"), little_model(little)).as_uri())


def embedded(file: Path, name: str) -> str:
    found = re.search(f'<script type="text/plain" id="{name}">(.*?)</script>', file.read_text(encoding="utf-8"), re.S)
    assert found
    return found[1]


# ---------------------------------------------------------------- the file


def naive(tensor: dict[str, Any], data: bytes) -> list[float]:
    """The numbers of a tensor, one by one."""
    n, at = int(np.prod(tensor["shape"])), tensor["offset"]
    if tensor["type"] != "q8_0":
        dtype = {"f32": "<f4", "f16": "<f2"}[tensor["type"]]
        return np.frombuffer(data, dtype, n, at).astype(float).tolist()
    scales = np.frombuffer(data, "<f2", n // 32, at).astype(float)
    numbers = np.frombuffer(data, "i1", n, at + 2 * (n // 32))
    return [scales[i // 32] * int(numbers[i]) for i in range(n)]


@pytest.mark.parametrize("kind", ["q8_0", "f16"])
@EVERY
def test_weights_are_within_half_a_step(little: Little, tmp_path: Path, architecture: str, kind: str) -> None:
    few = sizes_for(little.tokenizer, **supported(architecture, {"tie_embeddings": True, "ffn_dim": 41}))
    model = random_model(few, architecture=architecture)
    file = written(tmp_path, loaded(model, little.tokenizer, few, architecture), kind=kind)
    header = json.loads(embedded(file, "model-header"))
    data = gzip.decompress(base64.b64decode(embedded(file, "model-weights")))
    own = model.state_dict()
    assert {one["name"] for one in header["tensors"]} >= set(own) - {"lm_head.weight"}
    kinds = set()
    for tensor in header["tensors"]:
        want = own[tensor["name"]].double().flatten().numpy()
        assert tensor["offset"] % 16 == 0 and tuple(tensor["shape"]) == own[tensor["name"]].shape
        step = {"f32": 0.0, "f16": np.maximum(np.abs(want) * 2**-10, 2**-24)}.get(tensor["type"])
        if step is None:
            step = np.repeat(np.abs(want.reshape(-1, 32)).max(1) / 127, 32)
        assert (np.abs(np.asarray(naive(tensor, data)) - want) <= 0.51 * step).all(), tensor["name"]
        kinds.add(tensor["type"])
    assert kinds == {"f32", kind}


def test_a_model_of_five_million_parameters_takes_1_4_times_its_weights_at_most(little: Little, tmp_path: Path) -> None:
    model = little_model(little, emb_dim=256, n_layers=6)
    assert 4e6 < model.n_parameters < 6e6
    file = written(tmp_path, model)
    weights = gzip.decompress(base64.b64decode(embedded(file, "model-weights")))
    assert len(weights) < 1.07 * model.n_parameters
    assert file.stat().st_size < 1.4 * len(weights)


def test_equal_models_give_equal_files(little: Little, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, second = (written(folder, little_model(little)) for folder in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def hostile(little: Little, folder: Path) -> Path:
    spm = train_directly(story_lines(400), user_defined_symbols=["</script>", "<!--", "\u2028"])
    return written(folder, little_model(little, Tokenizer(spm, Path("hostile.model"))), HOSTILE)


def test_titles_cards_and_tokens_are_only_text(little: Little, tmp_path: Path) -> None:
    text = hostile(little, tmp_path).read_text(encoding="utf-8")
    found = Tags(text.replace("<!doctype html>", ""))
    scripts = re.findall(r"<script[^>]*>", text)
    data = [f'<script type="text/plain" id="{name}">' for name in ("model-header", "words", "model-weights")]
    assert scripts == [*data, "<script>"]
    assert {value for name, value in found.attributes if name == "src"} == {
        value for name, value in found.attributes if name == "href"
    }  # one icon, in the page itself
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "alert(1)" in "".join(found.texts)
    assert HOSTILE not in text and "\u202e" not in text


def test_the_page_refers_to_nothing_outside(little: Little, tmp_path: Path) -> None:
    file = written(tmp_path, little_model(little))
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in text and "unsafe-inline" not in text and "connect-src" not in text
    own = text.replace(embedded(file, "model-weights"), "").replace(embedded(file, "words"), "")
    assert not re.search(r"\bimport\b.*from|\bfetch\(|XMLHttpRequest|WebSocket|innerHTML|\beval\(", own)
    assert "${location.origin}" in own and "http:" not in own and "https:" not in own


def test_no_module_of_the_page_takes_a_name_of_another(little: Little, tmp_path: Path) -> None:
    """They are one script in the file, where a second function of a name would silently replace the first."""
    text = written(tmp_path, little_model(little)).read_text(encoding="utf-8")
    script = text.rpartition("<script>")[2]
    names = re.findall(r"^(?:async )?(?:function\*? |class |const |let )(\w+)", script, re.MULTILINE)
    assert len(names) > 100 and len(names) == len(set(names))
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)


# ---------------------------------------------------------------- the gate


@IN_A_BROWSER
@pytest.mark.parametrize("kind", ["q8_0", pytest.param("f16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("architecture", ["qwen3", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_the_browser_is_our_equal(little: Little, tmp_path: Path, architecture: str, kind: Any) -> None:
    other = {"qkv_bias": True, "n_kv_heads": 2, "head_dim": 16, "rope_theta": 500.0, "tie_embeddings": True}
    few = sizes_for(little.tokenizer, context_length=80, **supported(architecture, other))
    model = random_model(few, architecture=architecture, spread=0.05)
    report = export_here(tmp_path / "豆", model, few, little.tokenizer, architecture, targets=["html"], html_type=kind)
    assert report.files == ["README.md", "豆.html"]
    assert [check.name for check in report.checks["html"]] == CHECKS
    rounding, opened, logits, *_ = report.checks["html"]
    assert f"between the original weights and {kind}" in rounding.found and float(rounding.found.split()[0]) > 0
    assert opened.found.startswith("opened from a file, without a request or an error, in ")
    assert f"the same {kind} weights" in logits.found


@IN_A_BROWSER
def test_a_tuned_model_answers_in_the_file(tuned: Path, tmp_path: Path) -> None:
    report = export(str(tuned), tmp_path / "豆", to="html", n_sentences=N_SENTENCES)
    assert [check.name for check in report.checks["html"]] == [*CHECKS, *CHAT_CHECKS]
    template, answers = report.checks["html"][-2:]
    assert template.found.startswith("3 of 3 conversations") and answers.found[0] != "0"


@IN_A_BROWSER
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sum / x.length", "sum / (x.length + 1)", r"logits: max difference .*greedy: "),
        pytest.param('.normalize("NFC")', "", r"tokenizer: ", marks=pytest.mark.slow),
        ("begin().catch", 'fetch("http://127.0.0.1:9/");\nbegin().catch', r"page: .*127\.0\.0\.1:9/"),
    ],
)
def test_a_file_that_works_otherwise_never_gets_its_name(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    joined = html._joined

    def changed(modules: list[str]) -> str:
        script = joined(modules)
        assert old in script
        return script.replace(old, new)

    monkeypatch.setattr(html, "_joined", changed)
    model = little_model(little)
    with pytest.raises(ExportError, match=f"as html it differs from the model: .*{message}") as error:
        export_here(tmp_path / "out", model.model, model.sizes, little.tokenizer, "qwen3", targets=["html"])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_a_line_says_so(little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "find_browser", lambda: "")
    left_by_a_killed_export = make_scratch(tmp_path, 1)
    model = little_model(little)
    report = export_here(tmp_path / "out", model.model, model.sizes, little.tokenizer, "qwen3", targets=["html"])
    rounding, opened = report.checks["html"]
    assert (rounding.name, rounding.passed, opened.name) == ("rounding", True, "page")
    assert opened.found == "not opened in a browser: no Chromium or Chrome was found"
    assert not left_by_a_killed_export.exists()


def test_what_the_engine_does_not_have_is_refused(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unigram = Tokenizer(train_directly(model_type="unigram"), Path("unigram.model"))
    folded = Tokenizer(train_directly(), Path("folded.model"))
    for tokenizer, message in ((unigram, "is a unigram model"), (folded, "has a normalization table")):
        model = little_model(little, tokenizer)
        with pytest.raises(ExportError, match=f"{tokenizer.path} {message}.*to html does not support; use"):
            export_here(tmp_path / "out", model.model, model.sizes, tokenizer, "qwen3", targets=["html"])
    monkeypatch.setattr(html, "MAX_BYTES", 1000)
    model = little_model(little)
    with pytest.raises(ExportError, match=r"the weights have 0 MB, and a page holds at most 0 MB; export with to hf"):
        export_here(tmp_path / "out", model.model, model.sizes, little.tokenizer, "qwen3", targets=["html"])
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the engine


@IN_A_BROWSER
@VARIANTS
def test_logits_are_those_of_the_stored_weights(
    little: Little, browser: Browser, tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    changed = {"vocab_size": little.tokenizer.vocab_size, "context_length": 70, **changes}
    few, model = sizes(**changed), model_of(architecture, **changed)
    opened = browser.open(written(tmp_path, loaded(model, little.tokenizer, few, architecture), kind="f16").as_uri())
    stored = {name: torch.from_numpy(one.values) for name, one in html._stored(model, "f16").items()}
    model.load_state_dict(stored)
    ids = torch.randint(few.vocab_size, (1, 70), generator=torch.Generator().manual_seed(0))
    found = opened.call(
        """async (ids) => {
          await load();
          const sequence = new Sequence(model);
          return ids.map((id) => Array.from(sequence.add(id)));
        }""",
        ids[0].tolist(),
    )
    with torch.inference_mode():
        own = model.out_head(model.hidden(ids))[0]
    assert (torch.tensor(found) - own).abs().max() < 1e-4 * own.abs().max()
    assert opened.complaints == []


@IN_A_BROWSER
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (5, 16), (7, 41), (33, 64), (100, 344)])
def test_webassembly_and_javascript_multiply_alike(page: Page, rows: int, cols: int) -> None:
    draw = np.random.default_rng(0)
    matrix, vector = draw.standard_normal((rows, cols)).astype("f"), draw.standard_normal(cols).astype("f")
    found = page.call(
        """({ matrix, vector }) => {
          const floats = new Floats(1 << 16);
          const made = floats.matrix(matrix.length, vector.length);
          matrix.forEach((row, r) => made.values.set(row, r * made.stride));
          const x = floats.vector(vector.length), all = [];
          x.set(vector);
          for (const multiply of [floats.multiply, multiplyPlainly]) {
            const y = floats.vector(matrix.length);
            multiply(made, x, y);
            all.push(Array.from(y));
          }
          return all;
        }""",
        {"matrix": matrix.tolist(), "vector": vector.tolist()},
    )
    for product in found:
        np.testing.assert_allclose(product, matrix @ vector, rtol=1e-5, atol=1e-5)


TOKENIZERS: dict[str, dict[str, Any]] = {
    "ours": {},
    "symbols": {"user_defined_symbols": ["<|user|>", "<|", "豆の木", "  "]},
    "dummy prefix": {"add_dummy_prefix": True},
    "no bytes": {"byte_fallback": False, "character_coverage": 0.98},
}


@IN_A_BROWSER
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_and_texts_are_those_of_sentencepiece(little: Little, browser: Browser, tmp_path: Path, name: str) -> None:
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False}
    own = train_directly(story_lines(400), split_digits=True, **plain | TOKENIZERS[name])
    tokenizer = little.tokenizer if name == "ours" else Tokenizer(own, Path("x.model"))
    opened = browser.open(written(tmp_path, little_model(little, tokenizer)).as_uri())
    texts = [
        *EDGE_CASES,
        *more_edge_cases(),
        *(line for line in story_lines(50, seed=3)),
        *(text for _, text in stories(seed=3, n=20)),
    ]
    want = [tokenizer.encode(normalize(text)) for text in texts]
    assert opened.call("(texts) => texts.map((text) => tokenizer.encode(normalize(text)))", texts) == want
    assert opened.call("(all) => all.map((ids) => tokenizer.decode(ids))", want) == list(map(tokenizer.decode, want))
    assert opened.call("(texts) => texts.map(normalize)", texts) == list(map(normalize, texts))


def more_edge_cases() -> list[str]:
    return [
        "<|user|>豆の木<|<|user|>",
        "豆の木豆の木",
        "   ",
        "a    b",
        "\u2581",
        "\ufeff先頭",
        "\u2028\u2029",
        "</script><!--",
        "ああああああああああああ",
        "𠮷𠮷x𠮷",
        "\u200d👩\u200d🔬",
        "\u3099",
        "x" * 3000,
    ]


@IN_A_BROWSER
def test_lone_surrogates_are_replaced_as_in_python(page: Page) -> None:
    assert page.call("() => normalize('a\\ud800b\\udfff')") == normalize("a\ud800b\udfff") == "a\ufffdb\ufffd"


SAMPLINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(temperature=1.3, top_k=7),
    Sampling(temperature=0.5, min_p=0.05),
    Sampling(temperature=2.0, top_k=40, top_p=0.8, min_p=0.02, repetition_penalty=1.3),
]


@IN_A_BROWSER
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tokens_have_the_same_chances(page: Page, sampling: Sampling) -> None:
    logits = 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    seen = [3, 5, 5, 900]
    penalised = penalise_repetition(logits, torch.tensor(seen), sampling.repetition_penalty)
    want = probabilities(penalised, sampling)
    settings = dataclasses.asdict(sampling)
    found = page.call(
        """({ logits, seen, settings }) => {
          const scores = Float32Array.from(logits);
          penalizeRepetition(scores, seen, settings.repetition_penalty);
          return candidates(scores, settings);
        }""",
        {"logits": logits.tolist(), "seen": seen, "settings": settings},
    )
    assert {i for i, _ in found} == set(want.nonzero().flatten().tolist())
    total = sum(share for _, share in found)
    assert all(abs(share / total - want[i].item()) < 1e-5 for i, share in found)


@IN_A_BROWSER
def test_tokens_are_drawn_by_their_chances_and_by_the_seed(page: Page) -> None:
    draw = """(seed) => {
      const random = randomNumbers(seed), counts = [0, 0, 0];
      const sampling = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1 };
      const logits = Float32Array.of(0, Math.log(3), Math.log(6));
      for (let i = 0; i < 4000; i++) counts[choose(logits, [], sampling, random)]++;
      return counts;
    }"""
    counts = [page.call(draw, seed) for seed in (0, 1, 2**40, 2**53 - 1, 0)]
    assert counts[0] == counts[4] and len({tuple(one) for one in counts}) == 4
    assert all(abs(n - share) < 150 for one in counts for n, share in zip(one, (400, 1200, 2400), strict=True))


@IN_A_BROWSER
def test_bytes_make_whole_characters(page: Page, little: Little) -> None:
    tokenizer = little.tokenizer
    rule = WholeCharacters(tokenizer.byte_ids, tokenizer.vocab_size)
    for beginning in (
        b"",
        b"\xe3",
        b"\xe3\x81",
        b"\xf4",
        b"\xed",
        b"\xc2",
        b"\xf0\x9f",
        b"\xe3\x81\x82",
        b"\xe3A",
        b"\xff",
    ):
        ids = [tokenizer.byte_ids[byte] for byte in beginning]
        allowed = page.call(
            """({ ids, n }) => {
              const rule = new WholeCharacters(tokenizer), logits = new Float32Array(n);
              for (const id of ids) rule.add(id);
              rule.mask(logits);
              return Array.from(logits.keys()).filter((id) => logits[id] === 0);
            }""",
            {"ids": ids, "n": tokenizer.vocab_size},
        )
        missing = rule.after(ids)
        assert allowed == [token for token in range(tokenizer.vocab_size) if rule.allows(token, missing)], beginning


# ---------------------------------------------------------------- the page

SETTINGS = {
    "max_tokens": 12,
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 0.9,
    "min_p": 0,
    "repetition_penalty": 1,
    "logprobs": 5,
    "n": 2,
    "seed": 7,
    "prompt": "豆の木",
}

COMPLETE = """async (request) => {
  const choices = [];
  await complete(request, new AbortController().signal, (data) => choices.push(...data.choices));
  return Array.from({ length: request.n }, (_, i) => choices.filter(({ index }) => index === i));
}"""


def texts_of(page: Page, **changed: Any) -> list[str]:
    found = page.call(COMPLETE, SETTINGS | changed)
    return ["".join(choice["text"] for choice in text) for text in found]


@IN_A_BROWSER
def test_answers_are_as_the_playgrounds(page: Page, little: Little) -> None:
    model = little_model(little)
    first, second = page.call(COMPLETE, SETTINGS)
    assert first[-1]["finish_reason"] in ("stop", "length") and first[-1]["logprobs"] is None
    assert texts_of(page) == ["".join(one["text"] for one in text) for text in (first, second)]
    assert texts_of(page, seed=8)[0] == texts_of(page)[1] != texts_of(page)[0]  # the i-th text has seed + i
    ids = page.call("(prompt) => promptIds(prompt)", SETTINGS["prompt"])
    assert ids == prompt_ids(little.tokenizer, SETTINGS["prompt"], at_start=True)
    assert page.call("(prompt) => promptIds(prompt, false)", "豆") == prompt_ids(little.tokenizer, "豆")
    assert page.call("() => promptIds('', false)") == prompt_ids(little.tokenizer, "")
    stored = {name: torch.from_numpy(one.values) for name, one in html._stored(model.model, "q8_0").items()}
    model.model.load_state_dict(stored)
    with torch.inference_mode():
        own = model.model(torch.tensor([ids]))[0, -1].log_softmax(-1)
    begun = first[0]["logprobs"]
    top = own.topk(5)
    assert list(begun["top_logprobs"][0].values()) == pytest.approx(top.values.tolist(), abs=1e-3)
    assert begun["text_offset"] == [0]


@IN_A_BROWSER
def test_greedy_text_is_pytorchs_up_to_the_context(page: Page, little: Little) -> None:
    model = little_model(little)
    stored = {name: torch.from_numpy(one.values) for name, one in html._stored(model.model, "q8_0").items()}
    model.model.load_state_dict(stored)
    want = model.generate(SETTINGS["prompt"], max_new_tokens=12)
    assert texts_of(page, temperature=0) == [want, want]
    long = texts_of(page, temperature=0, max_tokens=60, prompt="豆の木が" * 20)  # beyond the context of 24 tokens
    assert long[0] == long[1] and "\ufffd" not in long[0]


@IN_A_BROWSER
def test_stop_strings_end_a_text_wherever_tokens_are_cut(page: Page) -> None:
    (plain,) = texts_of(page, n=1, max_tokens=20)
    assert len(plain) > 4
    stop = plain[2:4]
    assert texts_of(page, n=1, max_tokens=20, stop=[stop]) == [plain[: plain.index(stop)]]
    assert texts_of(page, n=1, max_tokens=20, stop=["\x01never"]) == [plain]


@IN_A_BROWSER
def test_a_person_writes_with_it(page: Page) -> None:
    page.call("() => { $('prompt').value = '豆の木'; $('max_tokens').value = 30; $('n').value = 3; }")
    page.call("() => { $('heat').checked = true; return write(); }")
    texts = page.call("() => Array.from(document.querySelectorAll('article.done .text'), (one) => one.textContent)")
    assert len(texts) == 3 and all(text.startswith("豆の木") and len(text) > 3 for text in texts)
    assert not any("\ufffd" in text for text in texts)
    assert page.call("() => $('status').textContent") and page.call("() => $('problem').hidden")
    page.call("() => showTip(document.querySelector('.token'))")
    assert page.call("() => $('tip').querySelectorAll('li').length") >= 5
    assert page.call("() => { $('language').click(); return [$('write').innerText, document.title]; }") in (
        ["GenerateCtrl ⏎", "豆 · 豆GPT"],
        ["生成Ctrl ⏎", "豆 · 豆GPT"],
    )
    done = "() => /生成しました$/.test($('status').textContent)"
    assert page.call(done) == (page.call("() => document.documentElement.lang") == "ja")
    footers = page.call("() => Array.from(document.querySelectorAll('#sheets footer .fact'), (it) => it.textContent)")
    spoken = words()[page.call("() => document.documentElement.lang")]
    assert set(footers[::2]) <= {spoken["ended"], spoken["long-enough"]}
    assert all(it.startswith(spoken["seed-is"].partition("{")[0]) for it in footers[1::2])
    page.call("() => showTip(document.querySelector('.token'))")
    assert page.call("() => { dispatchEvent(new Event('resize')); return $('tip').hidden; }")
    assert page.call("() => getComputedStyle($('model').parentElement).display") == "none"
    assert page.complaints == []


@IN_A_BROWSER
def test_stop_stops(page: Page) -> None:
    page.call("() => { $('max_tokens').value = 1000; $('n').value = 6; }")
    page.call("() => { setTimeout(() => $('stop').click()); return write(); }")
    last = page.call("() => $('sheets').querySelector('article footer span').textContent")
    assert last in (words()["ja"]["stopped"], words()["en"]["stopped"])


TURNS = [Message("user" if i % 2 == 0 else "assistant", f"{i}番目の ﾏﾒ") for i in range(9)]


@pytest.fixture(scope="module")
def chat(little: Little, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Pretrained]:
    """The page of a model that answers, with a context of 64 tokens, and that model with the stored weights."""
    model = dataclasses.replace(little_model(little, context_length=64), answers=True)
    opened = browser.open(written(tmp_path_factory.mktemp("chat"), model, "対話").as_uri())
    opened.call("load")
    model.model.load_state_dict({k: torch.from_numpy(v.values) for k, v in html._stored(model.model, "q8_0").items()})
    return opened, model


@IN_A_BROWSER
@pytest.mark.parametrize("system", [[], [Message("system", "短く。")]])
@pytest.mark.parametrize("n_turns", [1, 5, 9])
def test_the_newest_turns_are_read_that_fit(chat: tuple[Page, Pretrained], system: list[Message], n_turns: int) -> None:
    opened, model = chat
    messages = [*system, *TURNS[:n_turns]]
    found = opened.call(
        "({ messages, n }) => chatIds(fitting(messages, n))",
        {"messages": [message._asdict() for message in messages], "n": 12},
    )
    assert found == model.chat_ids(messages, max_new_tokens=12)


@IN_A_BROWSER
def test_a_person_chats_edits_and_retries(chat: tuple[Page, Pretrained]) -> None:
    opened, model = chat
    say = "(text) => { $('prompt').value = text; return send(); }"
    turns = "() => Array.from(document.querySelectorAll('#turns .text'), (one) => one.textContent)"
    idle = "() => new Promise((done) => { const see = () => isGenerating() ? setTimeout(see, 20) : done(); see(); })"
    assert opened.call("() => [document.body.dataset.mode, $('modes').hidden]") == ["chat", False]
    opened.call("() => { $('temperature').value = 0; $('max_tokens').value = 10; }")
    opened.call(say, "豆の木")
    opened.call(say, "<b>豆</b>")
    first = model.answer("豆の木", max_new_tokens=10)
    second = model.answer([("user", "豆の木"), ("assistant", first), ("user", "<b>豆</b>")], max_new_tokens=10)
    assert opened.call(turns) == ["豆の木", first, "<b>豆</b>", second]
    assert opened.call("() => $('turns').querySelectorAll('b').length") == 0
    assert opened.call("() => $('turns').querySelectorAll('.token').length") > 0
    opened.call("() => $('turns').querySelectorAll('.question button')[0].click()")
    opened.call(
        "() => { $('turns').querySelector('textarea').value = '春は'; $('turns').querySelector('.main').click(); }"
    )
    opened.call(idle)
    changed = model.answer("春は", max_new_tokens=10)
    assert opened.call(turns) == ["春は", changed]
    opened.call("() => { $('temperature').value = 2; $('turns').querySelector('.answer button').click(); }")
    opened.call(idle)
    assert opened.call(turns)[0] == "春は" and opened.call(turns)[1:] != [changed]
    opened.call("() => $('new-chat').click()")
    assert opened.call(turns) == [] and opened.call("() => stored('history', []).length") == 1
    assert opened.complaints == []


@IN_A_BROWSER
def test_hostile_texts_run_nothing(little: Little, browser: Browser, tmp_path: Path) -> None:
    opened = browser.open(hostile(little, tmp_path).as_uri())
    shown = opened.call("() => [document.title, $('card').querySelector('td').textContent]")
    assert all("<script>alert(1)</script>" in text for text in shown)
    n_images = opened.call(
        """(text) => {
          const sheet = new Sheet({ seed: 1 }, text);
          sheet.add({ text, logprobs: null, finish_reason: "length" });
          document.body.append(sheet.root);
          return document.images.length;
        }""",
        HOSTILE,
    )
    assert n_images == 1
    assert opened.complaints == []


def test_html_type_is_for_html(little: Little, tmp_path: Path) -> None:
    from mamegpt.cli.commands.models import export_command

    with pytest.raises(ConfigError, match="html_type f16 is for to html"):
        export_command(str(little.run), tmp_path / "out", html_type="f16", given=frozenset({"html_type"}))
