"""What models are asked, and that a model is scored the same by whatever door it comes in."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from huggingface_hub import ModelCard
from little import ROOT, Little
from safetensors.torch import load_file, save_file
from training_helpers import tiny

from mamegpt.cli.main import main
from mamegpt.cli.progress import show_progress
from mamegpt.cli.render.models import evaluation_table
from mamegpt.data.shards import _held_out, open_shards, write_shards
from mamegpt.data.sources import read_texts
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, ConfigError, DataError, ModelError
from mamegpt.evaluation import memorization, ngram, scorer
from mamegpt.evaluation.cloze import N_GAPS, cloze, make_gaps
from mamegpt.evaluation.evaluate import Evaluation, evaluate
from mamegpt.evaluation.memorization import continuations, verbatim_overlap
from mamegpt.evaluation.minimal_pairs import PHENOMENA, minimal_pairs, read_pairs
from mamegpt.evaluation.ngram import KneserNey, NgramScorer
from mamegpt.evaluation.proportion import Proportion
from mamegpt.evaluation.scorer import log_likelihoods, open_model, stream_of, text_quality
from mamegpt.evaluation.texts import EvalDocument, Texts, TextSample, named_texts, run_texts
from mamegpt.exporting import publish
from mamegpt.exporting.evaluation_card import card_rows
from mamegpt.exporting.hf import write_hf
from mamegpt.exporting.model_card import model_card
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import generate
from mamegpt.models.custom_gpt.hf import CUSTOM_GPT, GPT2
from mamegpt.pretrained import load
from mamegpt.report.run import ReportRun
from mamegpt.run.run import Run
from mamegpt.system.devices import Choice
from mamegpt.text.characters import count_classes
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training import validation
from mamegpt.training.trainer import train

CPU = torch.device("cpu")
TEXTS = ["豆の木", "昔々、あるところに、小さな豆がありました。" * 3, "𠮷野家と👨‍👩‍👧", ""]


def sample_of(texts: list[str]) -> TextSample:
    """Texts that were never tokenized."""
    return Texts(lambda: map(EvalDocument, texts)).sample()


@pytest.fixture(scope="module")
def run(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of our own to write into."""
    return Path(shutil.copytree(little.run, tmp_path_factory.mktemp("evaluation") / "run"))


@pytest.fixture(scope="module")
def foreign(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as transformers' GPT-2, with a tokenizer that only transformers reads."""
    folder = tmp_path_factory.mktemp("foreign")
    model = load(little.run, device="cpu").model
    write_hf(folder, model, little.sizes, little.tokenizer, GPT2)
    next(folder.glob("*.model")).unlink()
    return folder


@pytest.fixture(scope="module")
def found(run: Path, foreign: Path, little: Little) -> Evaluation:
    """The run, its export, and the stranger, measured together, writing little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization, "N_PROMPTS", 3)
        patch.setattr(memorization, "N_TOKENS", 40)
        return evaluate([str(run), str(little.exported), str(foreign)])


# ---------------------------------------------------------------- minimal pairs


def test_the_pairs_are_many_and_each_is_one_contrast() -> None:
    pairs = read_pairs()
    counts = Counter(pair.phenomenon for pair in pairs)
    assert tuple(counts) == PHENOMENA and len(PHENOMENA) == 10
    assert min(counts.values()) >= 33 and len(pairs) >= 330
    sentences = [sentence for pair in pairs for sentence in (pair.good, pair.bad)]
    assert len(set(sentences)) == len(sentences)
    for pair in pairs:
        assert all(normalize(s) == s and s[-1] in "。」" and s == s.strip() for s in (pair.good, pair.bad)), pair
        if pair.phenomenon == "word order":
            assert sorted(pair.good) == sorted(pair.bad), pair
        else:
            assert len(pair.good) - _in_common(pair.good, pair.bad) <= 8, pair
        assert abs(len(pair.good) - len(pair.bad)) <= 4, pair
    shorter = sum(len(pair.good) < len(pair.bad) for pair in pairs)
    longer = sum(len(pair.good) > len(pair.bad) for pair in pairs)
    assert shorter + longer < len(pairs) / 3  # length alone decides few


def test_the_readmes_say_how_many_pairs_there_are() -> None:
    n = len(read_pairs())
    assert f"自作の最小対 {n} 組" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{n} minimal pairs" in (ROOT / "README.en.md").read_text(encoding="utf-8")


def _in_common(a: str, b: str) -> int:
    """Characters two sentences begin and end with together."""
    same = [
        sum(1 for _ in itertools.takewhile(lambda xy: xy[0] == xy[1], zip(*ab, strict=False)))
        for ab in ((a, b), (a[::-1], b[::-1]))
    ]
    return min(sum(same), len(a), len(b))


class Alphabet:
    """A scorer of characters: each costs what a table says, else 1."""

    context_length, vocab_size, start_id, end_id, restarts, fingerprint = 5, 1 << 21, 0, None, False, ""

    def __init__(self, **costs: float) -> None:
        self.costs = {ord(character): cost for character, cost in costs.items()}

    def encode(self, texts):
        return [[ord(character) for character in text] for text in texts]

    def nats(self, rows):
        assert all(1 <= len(row) <= self.context_length + 1 for row in rows)
        return [sum(self.costs.get(int(token), 1.0) for token in row[1:]) for row in rows]


def test_a_pair_is_right_if_the_good_sentence_is_likelier() -> None:
    pairs = read_pairs()
    scores = minimal_pairs(Alphabet())  # every character is as likely, so the shorter sentence wins
    expected = [(len(p.good) < len(p.bad)) + (len(p.good) == len(p.bad)) / 2 for p in pairs]
    assert scores.total == Proportion(sum(expected) / len(pairs), len(pairs))
    assert scores.per_character.share == 0.5
    counters = [e for e, p in zip(expected, pairs, strict=True) if p.phenomenon == "counters"]
    assert scores.by_phenomenon["counters"] == Proportion(sum(counters) / len(counters), len(counters))
    cheap = Alphabet(匹=0.0)
    cats, books = next(p for p in pairs if "猫が二匹" in p.good), next(p for p in pairs if "本を三匹" in p.bad)
    assert log_likelihoods(cheap, [cats.good])[0] > log_likelihoods(cheap, [cats.bad])[0]
    assert log_likelihoods(cheap, [books.good])[0] < log_likelihoods(cheap, [books.bad])[0]


def test_a_share_and_its_standard_error() -> None:
    assert str(Proportion(0.8, 100)) == "80.0% ± 4.0%"


# ---------------------------------------------------------------- likelihoods


def test_likelihoods_are_those_of_a_plain_loop(little: Little) -> None:
    scorer = open_model(str(little.run))
    model, context = load(little.run, device="cpu").model, little.sizes.context_length
    for text, got in zip(TEXTS, log_likelihoods(scorer, TEXTS), strict=True):
        ids = [little.tokenizer.eos_id, *little.tokenizer.encode(text)]
        expected = 0.0
        for t in range(1, len(ids)):
            begin = (t - 1) // context * context
            with torch.no_grad():
                expected += model(torch.tensor([ids[begin:t]]))[0, -1].double().log_softmax(-1)[ids[t]].item()
        assert got == pytest.approx(expected, rel=1e-5)
    assert max(len(ids) for ids in scorer.encode(TEXTS)) > context


def test_the_quality_of_a_text_is_what_training_says(little: Little) -> None:
    scorer, model = open_model(str(little.run)), load(little.run, device="cpu").model
    sample = sample_of(TEXTS)
    expected = validation.evaluate(
        model,
        stream_of(scorer, sample),
        n_characters=sample.n_characters,
        n_bytes=sample.n_bytes,
        context_length=model.context_length,
        start_id=little.tokenizer.start_id,
        world=World(0, 1, CPU),
    )
    got = text_quality(scorer, sample)
    assert (got.n_tokens, got.n_characters, got.n_bytes) == (
        expected.n_tokens,
        expected.n_characters,
        expected.n_bytes,
    )
    assert got.loss == pytest.approx(expected.loss, rel=1e-6)
    assert got.bits_per_character == pytest.approx(expected.bits_per_character, rel=1e-6)


def test_what_transformers_loads_is_scored_like_ours(foreign: Path, little: Little) -> None:
    ours, theirs = open_model(str(little.run)), open_model(str(foreign))
    assert theirs.tokenizer is None and theirs.context_length == ours.context_length
    assert log_likelihoods(theirs, TEXTS) == pytest.approx(log_likelihoods(ours, TEXTS), rel=1e-4)
    state = torch.get_rng_state()
    prompt = "昔々、" * 20
    written = theirs.write([prompt, prompt], 100)
    assert written == theirs.write([prompt, prompt], 100) and written[0] != written[1] and all(written)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_folder_that_transformers_cannot_load_is_an_error(foreign: Path, tmp_path: Path) -> None:
    shutil.copytree(foreign, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be loaded by transformers"):
        open_model(str(tmp_path / "m"))


def lossy_tokenizer(folder: Path, texts: list[str]) -> Path:
    """SentencePiece's defaults: other widths are unified, spaces joined, rare characters unknown."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "lossy"),
        vocab_size=400,
        model_type="bpe",
        character_coverage=0.98,
        minloglevel=2,
    )
    return folder / "lossy.model"


@pytest.mark.parametrize("kind", ["lossless", "lossy"])
def test_training_and_eval_divide_the_same_bits_by_the_characters_of_the_text(
    little: Little, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorization, "N_PROMPTS", 1)
    few = itertools.islice(read_texts(little.text), 40)
    texts = [f"{text}\n　㍿ＡＢＣ１２３ ｶﾅ {chr(0x4E00 + 7 * i)}  鬱" for i, text in enumerate(few)]
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
    )
    spm = little.spm if kind == "lossless" else lossy_tokenizer(tmp_path, texts)
    config = tiny(tmp_path / "text.jsonl", spm, tmp_path / "run", val_fraction=0.15)
    trained = train(config, watchers=[show_progress()]).quality
    assert ("of the tokens are unknown characters" in capsys.readouterr().out) == (kind == "lossy")
    (model,) = evaluate([str(tmp_path / "run")]).models
    evaluated = model.text["validation"]

    tokenizer = Tokenizer.load(spm)
    _, splits = open_shards(tmp_path / "run" / "tokens", tokenizer)
    held_out = [text for text in read_texts(tmp_path / "text.jsonl") if _held_out(text, 0.15)]
    nats, ids = 0.0, [tokenizer.eos_id, *splits["val"].tokens.tolist()]
    network = load(str(tmp_path / "run"), device="cpu").model
    for t in range(1, len(ids)):
        begin = (t - 1) // config.context_length * config.context_length
        with torch.no_grad():
            nats -= network(torch.tensor([ids[begin:t]]))[0, -1].double().log_softmax(-1)[ids[t]].item()
    n_characters, n_bytes = len("".join(held_out)), len("".join(held_out).encode())
    assert trained is not None
    for quality in (trained, evaluated):
        assert (quality.n_characters, quality.of_n_characters, quality.n_bytes) == (n_characters, n_characters, n_bytes)
        assert quality.n_tokens == len(ids) - 1
        assert quality.bits_per_character == pytest.approx(nats / math.log(2) / n_characters, rel=1e-5)
        assert quality.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    lost = len("".join(held_out)) - sum(len(tokenizer.decode(tokenizer.encode(text))) for text in held_out)
    assert (lost != 0) == (kind == "lossy")


def test_a_sample_of_shards_has_its_share_of_what_was_tokenized(little: Little) -> None:
    val = run_texts(Run(little.run))["val"]
    whole = val.sample()
    sample = val.sample(limit := whole.n_characters // 2)
    assert 0 < sample.n_characters == len("".join(sample.texts)) <= limit
    assert sample.of_n_characters == whole.n_characters == whole.of_n_characters == val.n_characters
    assert whole.n_bytes == val.n_bytes and sample.n_bytes == len("".join(sample.texts).encode())


# ---------------------------------------------------------------- foreign models


SIZES = {
    "vocab_size": 120,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def foreign_folder(folder: Path, kind: str, begins: bool = True) -> Path:
    """A tiny made-up model of a class of transformers; its tokenizer has characters, and BOS if the model has."""
    import tokenizers
    import transformers

    characters = sorted(set("".join(TEXTS) + "あいうえお、。"))
    words = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *characters])}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    if begins:
        fast.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(5)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma"])
def test_what_begins_texts_has_its_beginning_in_every_document_and_window(tmp_path: Path, kind: str) -> None:
    import transformers

    scorer = open_model(str(foreign_folder(tmp_path, kind)))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    n, nats, n_tokens = scorer.context_length, 0.0, 0
    assert n == 16 < max(map(len, TEXTS))

    def cost(ids: list[int]) -> float:
        """That of ids in windows, each after the beginning."""
        total = 0.0
        for t in range(len(ids)):
            begin = t // n * n
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[1, *ids[begin:t]]])).logits[0, -1].double()
            total -= logits.log_softmax(-1)[ids[t]].item()
        return total

    for text in TEXTS:
        (ids,) = scorer.encode([text])
        assert 1 not in ids
        nats, n_tokens = nats + cost([*ids, 2]), n_tokens + len(ids) + 1
        assert log_likelihoods(scorer, [text]) == pytest.approx([-cost(ids)], rel=1e-4)
    got = text_quality(scorer, sample_of(TEXTS))
    assert got.n_tokens == n_tokens and got.loss == pytest.approx(nats / n_tokens, rel=1e-4)
    # An n-gram model beside it learns what stands before a text as well, and is asked the same.
    tokens = stream_of(scorer, sample_of(TEXTS)).tolist()
    assert tokens.count(1) == tokens.count(2) == len(TEXTS) and tokens[0] == 1
    assert text_quality(NgramScorer(scorer, np.array(tokens), 3), sample_of(TEXTS)).n_tokens == n_tokens


@pytest.mark.parametrize(("said", "length"), [({}, 1024), ({"n_positions": 48}, 48), ({"n_positions": 4096}, 4096)])
def test_eval_and_generate_wrap_a_model_of_transformers_alike(
    little: Little, tmp_path: Path, said: dict[str, int], length: int
) -> None:
    folder = foreign_folder(tmp_path, "Bloom")  # any position will do: the context is what its folder says
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["max_position_embeddings"]  # of our sizes for all kinds; Bloom has none
    (folder / "config.json").write_text(json.dumps(config | said), encoding="utf-8")
    scorer = open_model(str(folder))
    shutil.copy(little.spm, folder)
    loaded = load(folder, device="cpu", trust_remote_code=True)
    assert (loaded.model.context_length, scorer.context_length) == (length, min(length, 1024))
    assert loaded.model.out_head is loaded.model.out_head
    ids = np.arange(1, 30)
    with torch.inference_mode():
        logits = loaded.model.out_head(loaded.model.hidden(torch.from_numpy(ids[None, :-1])))[0]
    nats = -logits.log_softmax(-1)[np.arange(28), ids[1:]].sum().item()
    assert scorer.nats([ids]) == pytest.approx([nats], rel=1e-6)


def test_a_foreign_model_writes_at_temperature_1_whatever_its_folder_says(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path, "Llama")
    plain = open_model(str(folder)).write(["豆の木", "豆の木", ""], 8)
    assert len(set(plain)) == 3
    settings = {
        "do_sample": True,
        "temperature": 0.01,
        "top_k": 1,
        "top_p": 0.1,
        "repetition_penalty": 3.0,
        "max_new_tokens": 1,
        "suppress_tokens": [5, 6],
        "bos_token_id": 1,
        "eos_token_id": [2, 7],
    }
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert open_model(str(folder)).write(["豆の木", "豆の木", ""], 8) == plain


@pytest.mark.parametrize("kind", ["foreign", "own"])
def test_weights_that_are_no_numbers_are_said(little: Little, foreign: Path, tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(foreign if kind == "foreign" else little.exported, tmp_path / "m"))
    weights = load_file(folder / "model.safetensors")
    next(weight for name, weight in weights.items() if "norm" in name or "ln" in name)[0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="NaN"):
        evaluate([str(folder)])


# ---------------------------------------------------------------- the n-gram model


def plain_kneser_ney(tokens: list[int], V: int, order: int, history: list[int], token: int) -> float:
    """Interpolated Kneser-Ney as Chen and Goodman (1998) write it, counting everything anew."""

    def counts_at(k: int) -> Counter[tuple[int, ...]]:
        occurrences = Counter(tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1))
        if k == order:
            return occurrences
        return Counter(gram[1:] for gram in {tuple(tokens[i : i + k + 1]) for i in range(len(tokens) - k)})

    probability = 1 / V
    for k in range(1, order + 1):
        counts = counts_at(k)
        context = tuple(history[len(history) - k + 1 :]) if k > 1 else ()
        following = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == context}
        if len(context) < k - 1 or not following:
            continue
        d = (0.0, *ngram.discounts(np.array([*counts.values()])))
        total = sum(following.values())
        freed = sum(d[min(n, 3)] for n in following.values())
        own = following.get(token, 0)
        probability = (own - d[min(own, 3)]) / total + freed / total * probability
    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_ngram_model_is_the_plain_one(order: int) -> None:
    dice = random.Random(order)
    tokens = [min(dice.randrange(9), dice.randrange(9)) for _ in range(400)]
    model = KneserNey(np.array(tokens, np.uint16), 11, order)  # two tokens never occur
    test = [dice.randrange(11) for _ in range(60)]
    expected = [plain_kneser_ney(tokens, 11, order, test[:i], test[i]) for i in range(60)]
    assert model.probabilities(np.array(test)).tolist() == pytest.approx(expected, rel=1e-9)
    for history in ([], [0], [3, 1], [1, 0, 0], [10, 10, 10]):
        total = sum(model.probabilities(np.array([*history, token]))[-1] for token in range(11))
        assert total == pytest.approx(1)


def test_with_one_discount_it_is_nltks(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = pytest.importorskip("nltk.lm")
    util = pytest.importorskip("nltk.util")
    dice = random.Random(0)
    tokens = [min(dice.randrange(8), dice.randrange(8)) for _ in range(300)]
    theirs = lm.KneserNeyInterpolated(3, discount=0.6)
    words = [str(token) for token in tokens]
    theirs.fit([[gram for k in (1, 2, 3) for gram in util.ngrams(words, k)]], sorted(set(words)))
    # Of single tokens nltk discounts nothing.
    monkeypatch.setattr(ngram, "discounts", lambda counts: (0.0,) * 3 if len(counts) <= 8 else (0.6,) * 3)
    ours = KneserNey(np.array(tokens), 8, 3)
    for i in range(2, 100):
        window = tokens[i - 2 : i + 1]
        expected = theirs.score(str(window[2]), [str(token) for token in window[:2]])
        assert ours.probabilities(np.array(window))[-1] == pytest.approx(expected, rel=1e-9)


def test_discounts_are_estimated_or_kenlms_fallback() -> None:
    counts = np.array([1] * 40 + [2] * 10 + [3] * 5 + [4] * 2)
    y = 40 / 60
    assert ngram.discounts(counts) == (1 - 2 * y * 10 / 40, 2 - 3 * y * 5 / 10, 3 - 4 * y * 2 / 5)
    assert ngram.discounts(np.array([1, 2, 2, 5])) == ngram.FALLBACK
    assert ngram.discounts(np.array([1, 2] + [3] * 9)) == ngram.FALLBACK  # 2 - 3 * y * 9 / 1 is negative


@pytest.mark.parametrize("n", [1, 2])
def test_a_text_shorter_than_the_order_has_fewer_orders(n: int) -> None:
    assert KneserNey(np.arange(n), 4, 3).probabilities(np.array([3, 0])).min() > 0


def test_as_a_scorer_it_reads_whole_texts(little: Little) -> None:
    own = open_model(str(little.run))
    tokens = stream_of(own, sample_of(TEXTS))
    scorer = NgramScorer(own, tokens, 3)
    expected = KneserNey(tokens, little.tokenizer.vocab_size, 3).probabilities(np.concatenate(([own.start_id], tokens)))
    got = text_quality(scorer, sample_of(TEXTS))
    assert got.loss == pytest.approx(-np.log(expected[1:]).mean())
    assert got.bits_per_character == pytest.approx(-np.log2(expected[1:]).sum() / len("".join(TEXTS)))


# ---------------------------------------------------------------- cloze


def articles(n: int = 60) -> list[str]:
    """Articles of words in kanji and katakana, each used twice, and now and then in others."""
    dice = random.Random(3)
    words = [a + b for a in "春夏秋冬東西南北" for b in "山川海空"] + [
        a + b + "ン" for a in "アイウエ" for b in "カキクケ"
    ]
    found = []
    for _ in range(n):
        some = dice.sample(words, 8)
        found.append(
            "".join(f"これは{word}です。" for word in some) + "\n" + "".join(f"また{word}を見た。" for word in some)
        )
    return found


def test_a_gap_had_a_word_of_the_article_and_three_like_it_of_others() -> None:
    texts = articles()
    gaps = make_gaps(texts)
    assert 40 < len(gaps) <= len(texts) and gaps == make_gaps(texts) != make_gaps(texts, seed=1)
    assert N_GAPS >= len(make_gaps(texts * 9)) > len(texts)
    n_articles: dict[str, int] = defaultdict(int)
    for text in texts:
        for word in {word for gap in gaps for word in gap.words}:
            n_articles[word] += word in text
    for gap in gaps:
        right, *wrong = gap.words
        (text,) = (text for text in texts if gap.before + right + gap.after in text)
        assert right in gap.before and gap.after == "を見た。"
        assert len(set(gap.words)) == 4 and not any(word in text for word in wrong)
        assert len({json.dumps(count_classes(word)) for word in gap.words}) == 1
        assert all(0.5 <= n_articles[word] / (n_articles[right] - 1) <= 2 for word in wrong)


def test_cloze_counts_the_gaps_where_the_right_word_is_likeliest() -> None:
    gaps = make_gaps(articles())
    assert cloze(Alphabet(), gaps) == Proportion(0.0, len(gaps))  # all as likely: none is right
    names = dict.fromkeys("春夏秋冬アイ", 0.5)
    share = cloze(Alphabet(**names), gaps)
    expected = sum(gap.words[0][0] in names and not any(w[0] in names for w in gap.words[1:]) for gap in gaps)
    assert share == Proportion(expected / len(gaps), len(gaps)) and 0 < expected < len(gaps)
    assert cloze(Alphabet(), []) is None and make_gaps([]) == make_gaps(["ひらがな"] * 9) == []


# ---------------------------------------------------------------- memorization and texts


def test_what_is_recited_is_what_a_plain_search_finds() -> None:
    dice = random.Random(5)
    training = ["".join(dice.choices("あい", k=300)) for _ in range(40)]
    written = {
        "copy": [training[3][10:80]],
        "half": [training[0][:30] + "う" * 30],
        "own": ["".join(dice.choices("あい", k=400)), "短い"],
        "short": ["短い"],
    }
    expected = {}
    for name, texts in written.items():
        strings = [text[i : i + 20] for text in texts for i in range(len(text) - 19)]
        expected[name] = sum(any(s in t for t in training) for s in strings) / len(strings) if strings else None
    assert verbatim_overlap(written, training) == expected
    assert expected["copy"] == 1 and 0 < expected["half"] < 1 and expected["short"] is None
    assert verbatim_overlap({"": []}, training) == {"": None}


def test_continuations_start_where_prompts_end(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorization, "N_TOKENS", 5)
    loaded = load(little.run)
    alone = [
        generate(loaded.model, loaded.tokenizer, text[:40], 5, Sampling(temperature=1, seed=seed), at_start=True)
        for seed, text in enumerate([TEXTS[0], TEXTS[0], TEXTS[1]])
    ]
    assert continuations(open_model(str(little.run)), [TEXTS[0], TEXTS[0], TEXTS[1]]) == alone
    assert alone[0] != alone[1] and all(alone)


def test_the_texts_of_a_run_come_back_from_its_tokens(little: Little) -> None:
    known = run_texts(Run(little.run))
    texts = {name: list(text) for name, text in known.items()}
    assert sorted(texts["train"] + texts["val"]) == sorted(read_texts(little.text)) and texts["val"]
    assert list(known["val"]) == texts["val"]  # again, from the beginning


def test_texts_by_name_and_from_shards(little: Little, tmp_path: Path) -> None:
    texts = list(read_texts(little.text))
    write_shards(tmp_path / "shards", {"train": texts}, little.tokenizer)
    for data in (little.text, tmp_path / "shards"):
        assert list(named_texts(str(data), "train", little.tokenizer)) == texts
    with pytest.raises(DataError, match="no split 'dev'; it has train"):
        named_texts(str(tmp_path / "shards"), "dev", little.tokenizer)
    with pytest.raises(DataError, match="tokens of another tokenizer"):
        named_texts(str(tmp_path / "shards"), "train", None)


# ---------------------------------------------------------------- the whole


def test_a_run_its_export_and_transformers_get_the_same_marks(found: Evaluation, run: Path) -> None:
    own, exported, stranger = found.models
    assert own.text.keys() == {"validation"} and own.cloze is not None
    for other in (exported, stranger):
        assert other.text["validation"].n_tokens == own.text["validation"].n_tokens
        assert other.text["validation"].loss == pytest.approx(own.text["validation"].loss, rel=1e-5)
        assert (other.pairs, other.cloze) == (own.pairs, own.cloze)
    assert own.recited == exported.recited
    records = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert own.text["validation"].loss == pytest.approx(json.loads(records[-1])["quality"]["loss"], rel=1e-5)
    assert found.baseline is not None and found.baseline.text["validation"].loss < own.text["validation"].loss
    assert found.heldout_recited is not None and 0 < found.heldout_recited < 1


def test_the_table_has_a_column_a_model(found: Evaluation, run: Path, foreign: Path) -> None:
    header, *rows, _, _, verdict_of_run, _, _ = evaluation_table(found).splitlines()
    assert verdict_of_run.startswith("run: ") and "more training would help" in verdict_of_run
    assert header.split() == ["run", "exported", foreign.name, "3-gram"]
    cells = {name.strip(): rest for name, *rest in ([c for c in row.split("  ") if c.strip()] for row in rows)}
    assert cells["bits per character"][0].strip() == f"{found.models[0].text['validation'].bits_per_character:.4f}"
    assert cells["counters"][0].strip() == str(found.models[0].pairs.by_phenomenon["counters"])
    assert [len(rest) for rest in cells.values()] == [4] * len(cells) and len(cells) == 17


def test_a_run_keeps_its_evaluation_and_the_card_tells_it(
    found: Evaluation, run: Path, little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path(found.models[0].origin)
    assert card_rows(Run(run), checkpoint) == []
    found.keep()
    kept = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(found.to_dict() | {"models": [found.to_dict()["models"][0]]}))
    rows = {english: value for _, english, value in card_rows(Run(run), checkpoint)}
    assert list(rows) == ["minimal pairs", "cloze", "n-gram baseline", "memorization"]
    pairs = found.models[0].pairs.total
    assert f"{pairs.share:.1%}({pairs.n} 組" in rows["minimal pairs"]
    assert f"3-gram は {found.baseline.text['validation'].bits_per_character:.3f}" in rows["n-gram baseline"]
    assert f"({found.models[0].cloze.n} 問の四択" in rows["cloze"]
    assert f"検証データでは {found.heldout_recited:.2%}" in rows["memorization"]
    assert card_rows(Run(run), checkpoint.with_name("step-00000001")) == []  # it was another checkpoint
    bits = [of.text["validation"].bits_per_character for of in (found.models[0], found.baseline)]
    told = ReportRun(run).scores
    assert told["checkpoint evaluated"] == checkpoint.name and told["bits/character"] == "{:.3f} ({:.3f})".format(*bits)
    assert (
        told["memorization (generated 20-character strings found in the training data)"]
        == f"{found.models[0].recited:.2%}"
        and len(told) == 6
    )

    given = {}
    monkeypatch.setattr(publish, "export_model", lambda *_, **options: given.update(options))
    publish.export(str(run), tmp_path / "out")
    card = model_card("豆", little.sizes, 1, little.tokenizer, CUSTOM_GPT, given["facts"])
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    index = {one.metric_name: one for one in ModelCard.load(tmp_path / "README.md").data.eval_results}
    assert list(index) == ["bits per character", "bits per byte", "cloze, one of four", "minimal pairs"]
    assert {name: one.metric_value for name, one in index.items()} == {
        "bits per character": round(found.models[0].text["validation"].bits_per_character, 4),
        "bits per byte": round(found.models[0].text["validation"].bits_per_byte, 4),
        "cloze, one of four": round(found.models[0].cloze.share, 4),
        "minimal pairs": round(pairs.share, 4),
    }
    assert index["minimal pairs"].metric_args == {"n_pairs": pairs.n}
    assert all(f" | {value} |\n" in card for value in rows.values()) and "| 最小対 / minimal pairs |" in card

    tiny = replace(found, models=[replace(found.models[0], cloze=None)], heldout_recited=None)
    tiny.keep()
    assert [english for _, english, _ in card_rows(Run(run), checkpoint)] == ["minimal pairs", "n-gram baseline"]
    (run / "evaluation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"evaluation\.json is damaged .* run: mamegpt eval"):
        card_rows(Run(run), checkpoint)
    (run / "evaluation.json").unlink()


def test_the_command_prints_and_writes_the_same(
    little: Little, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("豆の本。", encoding="utf-8")
    words = [
        "eval",
        "--model",
        str(little.exported),
        "--data",
        str(little.text),
        "--data",
        str(other),
        "--split",
        "train",
        "--max-characters",
        "900",
    ]
    ends = []
    for more in (["--json"], ["--out", str(tmp_path / "all.json")]):
        with pytest.raises(SystemExit) as end:
            main([*words, *more])
        ends.append(end.value.code)
    first, *lines = capsys.readouterr().out.splitlines()
    assert ends == [0, 0]
    assert json.loads(first) == json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    (model,) = json.loads(first)["models"]
    assert model["text"]["other.txt"]["n_characters"] == 4 and 300 < model["text"]["stories.txt"]["n_characters"] <= 900
    assert any(line.startswith("  bits per byte, other.txt ") for line in lines)
    assert json.loads(first)["baseline"] is None and not any("recited" in line for line in lines)


def test_a_run_without_its_tokens_is_measured_on_what_is_named(run: Path, little: Little, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("tokens")))
    (tmp_path / "tiny.txt").write_text("豆の本。", encoding="utf-8")
    found = evaluate([str(bare)], [str(tmp_path / "tiny.txt")], split="train", train_data=str(little.text))
    assert found.run == "" and found.heldout_recited is None and found.baseline is not None
    assert "for comparison: validation data itself" in evaluation_table(found) and list(found.models[0].text) == [
        "tiny.txt"
    ]
    found.keep()
    assert not (bare / "evaluation.json").exists()
    assert evaluate([str(bare)]).baseline is None


def test_a_checkpoint_is_measured_on_the_text_of_its_run_and_nothing_is_kept_there(little: Little) -> None:
    newest = Run(little.run).latest()
    assert newest is not None
    found = evaluate(newest.path, max_characters=2000)
    assert found.baseline is not None and found.run == "" and found.models[0].recited is not None
    assert found.models[0].text == evaluate(little.run, max_characters=2000).models[0].text
    found.keep()
    assert not (little.run / "evaluation.json").exists()


def test_text_that_a_model_was_trained_on_is_marked(little: Little, tmp_path: Path) -> None:
    for name, texts in (("learned", ["豆は丸い。", "米は白い。"]), ("other", ["麦は長い。"] * 30)):
        rows = [json.dumps({"text": text * 20}, ensure_ascii=False) + "\n" for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "both.jsonl").write_text(
        (tmp_path / "learned.jsonl").read_text(encoding="utf-8")
        + (tmp_path / "other.jsonl").read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    for held_out, share in (("learned", 1.0), ("both", 2 / 32), ("other", 0.0)):
        found = evaluate(
            little.exported,
            tmp_path / f"{held_out}.jsonl",
            split="train",
            train_data=tmp_path / "learned.jsonl",
        )
        assert found.heldout_trained_on == pytest.approx(share)
        assert (
            f"warning: {share:.0%} of the held-out documents are in the training text" in evaluation_table(found)
        ) == (share > 0)


def test_compared_models_are_on_the_device_one_at_a_time(
    little: Little, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[str, str]] = []
    for kind in (scorer._Own, scorer._Foreign):
        monkeypatch.setattr(kind, "move", lambda self, device: moves.append((self.origin, device.type)))
    card = Choice(torch.device("cuda", 0))
    monkeypatch.setattr("mamegpt.evaluation.evaluate.choose_device", lambda name: card)
    names = str(little.exported), str(foreign)
    evaluate(names)
    assert moves == [(name, kind) for name in names for kind in ("cuda", "cpu")]


def test_a_model_moves_unless_the_caller_has_loaded_it(little: Little, foreign: Path) -> None:
    meta, loaded = torch.device("meta"), load(little.run, device="cpu")
    own, theirs, given = open_model(str(little.run)), open_model(str(foreign)), open_model(loaded)
    for one in (own, theirs, given):
        one.move(meta)
    assert isinstance(own, scorer._Own) and own.loaded.device == meta and loaded.device == CPU
    assert isinstance(theirs, scorer._Foreign) and theirs._model.out_head.weight.device == meta


def test_a_model_alone_has_its_pairs(little: Little) -> None:
    found = evaluate([str(little.exported)])
    assert (
        found.models[0].text == {}
        and found.models[0].cloze is None
        and found.models[0].pairs.total.n == len(read_pairs())
    )
    assert found.run == "" and len(evaluation_table(found).splitlines()) == 14


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "name at least one model"),
        (["a", "a"], {}, "named twice"),
        (["a"], {"max_characters": -1}, r"max_characters must be at least 0 \(got -1\)"),
    ],
)
def test_what_cannot_be_meant_is_refused(models: list[str], options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(models, **options)
