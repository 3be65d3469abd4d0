"""How fast is one stream of greedy tokens on this machine, at the sizes of the original scripts?

    pip install -r benchmarks/peers/requirements-generation.txt
    python -m benchmarks.peers.bench_generation [--architecture NAME ...] [--rounds 9] [--threads 1] [--out FILE]

The same random weights everywhere (4 layers, 128 wide, 4 heads, vocabulary 16,000, context 256), a prompt of 4 tokens
and as many new ones as fit into the context:

* ``naive``: the original loop, the whole text and all its logits again for each token;
* ``transformers``: ``generate`` with its cache, on the exported folder;
* ``llama.cpp f32`` and ``f16``: the exported GGUF file, run by xllamacpp, attention and cache as is fastest here;
  the time is what the server says of the new tokens alone, without the prompt and without HTTP;
* ``mamegpt``: `mamegpt.generation.stream.stream_ids`, all of it, with the prompt and the preparation of the weights,
  by the native engine, which is compiled before if need be; and ``mamegpt in PyTorch``, the same without its library.

**Alternating.** A machine that other people use changes its speed by the second. So mamegpt runs before and after each
of the others, and what counts is the ratio of a time to the mean of its two neighbours: the median of the rounds, with
the smallest and the largest. Each contestant's ids are compared with those of the naive loop.

One thread is best for every one of these but, on an idle machine, the naive loop; see ``--threads``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.peers.without_bf16 import add_option, imitate, is_imitated, results_file
from mamegpt.config import ModelConfig, TrainConfig
from mamegpt.exporting.gguf import write_gguf
from mamegpt.exporting.gguf_types import GgufType
from mamegpt.exporting.hf import write_hf
from mamegpt.generation import fast_decode
from mamegpt.generation.fast_decode import native_for
from mamegpt.generation.stream import stream_ids
from mamegpt.models.base import LanguageModel
from mamegpt.models.registry import ARCHITECTURES, architecture_of, build_model, hf_formats
from mamegpt.native.library import load
from mamegpt.system.hardware import has_bf16
from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "transformers", "xllamacpp", "gguf", "numpy")
PROMPT = [1000, 2000, 3000, 4000]
OURS = "mamegpt"

Contestant = Callable[[], tuple[list[int], float]]
"""The new ids, and the seconds they took."""


def random_model(architecture: str, sizes: ModelConfig) -> LanguageModel:
    """Weights that say something else with each token, so that ids are worth comparing."""
    torch.manual_seed(0)
    model = build_model(architecture, sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def any_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Of as many pieces; what they are does not matter here."""
    kanji = "".join(chr(0x4E00 + i) for i in range(vocab_size - 1000))
    return Tokenizer.load(
        train_tokenizer([kanji, kanji], folder / "any", vocab_size=vocab_size, character_coverage=1).path
    )


def timed(function: Callable[[], list[int]]) -> Contestant:
    def run() -> tuple[list[int], float]:
        begin = time.perf_counter()
        ids = function()
        return ids, time.perf_counter() - begin

    return run


@torch.inference_mode()
def naive(model: LanguageModel, n_new: int) -> list[int]:
    """The original loop: no cache, and logits of all positions."""
    ids = torch.tensor([PROMPT])
    for _ in range(n_new):
        logits = model(ids[:, -model.context_length :])
        ids = torch.cat((ids, logits[:, -1].argmax(-1, keepdim=True)), dim=1)
    return ids[0, len(PROMPT) :].tolist()


# ---------------------------------------------------------------- transformers


def transformers_generate(
    architecture: str, model: LanguageModel, sizes: ModelConfig, tokenizer: Tokenizer, folder: Path, n: int
) -> Contestant:
    """``generate`` on a folder as `mamegpt export` writes it."""
    from transformers import AutoModelForCausalLM

    hf_format = hf_formats()[architecture]
    folder.mkdir()
    write_hf(folder, model, sizes, tokenizer, hf_format)
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=hf_format.remote_code is not None).eval()
    prompt = torch.tensor([PROMPT])
    options = {"max_new_tokens": n, "do_sample": False, "use_cache": True, "eos_token_id": None, "pad_token_id": 0}

    def run() -> list[int]:
        out = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        return out[0, len(PROMPT) :].tolist()  # type: ignore[no-any-return]

    return timed(run)


# ---------------------------------------------------------------- llama.cpp


def llama_cpp(path: Path, kind: GgufType, threads: int, n_new: int) -> Contestant:
    import xllamacpp

    attention = xllamacpp.llama_flash_attn_type
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 512  # it stops one token before the end
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    if kind == "f32":
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    else:
        params.flash_attn_type = attention.LLAMA_FLASH_ATTN_TYPE_ENABLED
    server = xllamacpp.Server(params)
    request = {
        "prompt": PROMPT,
        "n_predict": n_new,
        "temperature": 0.0,
        "samplers": ["temperature"],
        "ignore_eos": True,
        "cache_prompt": False,
        "return_tokens": True,
    }
    headers = {"Content-Type": "application/json"}

    def run() -> tuple[list[int], float]:
        asked = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(request).encode(), headers)
        with urllib.request.urlopen(asked) as reply:
            answer = json.load(reply)
        timings = answer["timings"]
        assert timings["predicted_n"] == n_new, timings
        return answer["tokens"], timings["predicted_ms"] / 1e3

    return run


# ---------------------------------------------------------------- the race


def contestants(
    architecture: str, model: LanguageModel, sizes: ModelConfig, folder: Path, threads: int
) -> Iterator[tuple[str, Contestant]]:
    """Names and functions; mamegpt is the first."""
    n_new = sizes.context_length - len(PROMPT)
    tokenizer = any_tokenizer(folder, sizes.vocab_size)
    native = load()

    def ours() -> list[int]:
        assert native_for(model) is native
        return list(stream_ids(model, PROMPT, n_new))

    def in_pytorch() -> list[int]:
        with mock.patch.object(fast_decode, "load_if_built", return_value=None):
            return list(stream_ids(model, PROMPT, n_new))

    yield OURS, timed(ours)
    yield f"{OURS} in PyTorch", timed(in_pytorch)
    yield "naive", timed(lambda: naive(model, n_new))
    yield "transformers", transformers_generate(architecture, model, sizes, tokenizer, folder / "hf", n_new)
    kinds: tuple[GgufType, ...] = ("f32", "f16")
    for kind in kinds:
        path = folder / f"{kind}.gguf"
        write_gguf(path, model, sizes, tokenizer, architecture_of(model).gguf_format, kind)
        yield f"llama.cpp {kind}", llama_cpp(path, kind, threads, n_new)


def race(architecture: str, rounds: int, threads: int) -> dict[str, Any]:
    sizes = TrainConfig(context_length=256, emb_dim=128, n_layers=4, n_heads=4, drop_rate=0.0).model(16_000)
    model = random_model(architecture, sizes)
    n_new = sizes.context_length - len(PROMPT)
    with tempfile.TemporaryDirectory(prefix="mamegpt-bench-") as folder:
        (_, ours), *others = contestants(architecture, model, sizes, Path(folder), threads)
        ids = {name: run()[0] for name, run in [(OURS, ours), *others]}  # and a warm-up
        seconds: dict[str, list[float]] = {name: [] for name in ids}
        ratios: dict[str, list[float]] = {name: [] for name, _ in others}
        for _ in range(rounds):
            for name, run in others:
                before, between, after = ours()[1], run()[1], ours()[1]
                seconds[OURS] += [before, after]
                seconds[name].append(between)
                ratios[name].append(between / statistics.fmean((before, after)))
    same = {
        name: next((i for i, (a, b) in enumerate(zip(found, ids["naive"], strict=True)) if a != b), n_new)
        for name, found in ids.items()
    }
    return {
        name: {
            "tokens_per_s": round(n_new / statistics.median(times)),
            "best_tokens_per_s": round(n_new / min(times)),
            "mamegpt_times_as_fast": [round(f(ratios[name]), 3) for f in (statistics.median, min, max)]
            if name != OURS
            else None,
            "same_ids": same[name],
            "new_tokens": n_new,
        }
        for name, times in seconds.items()
    }


def table(architecture: str, found: dict[str, Any]) -> str:
    lines = [
        f"| {architecture} | tokens/s (best) | mamegpt is (smallest to largest) | first ids as naive |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in found.items():
        ratio = "{:.2f}x ({:.2f} to {:.2f})".format(*row["mamegpt_times_as_fast"]) if name != OURS else "-"
        lines.append(
            f"| {name} | {row['tokens_per_s']:,} ({row['best_tokens_per_s']:,}) | {ratio} | "
            f"{row['same_ids']} of {row['new_tokens']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--architecture", nargs="+", choices=list(ARCHITECTURES), default=list(ARCHITECTURES))
    parser.add_argument("--rounds", type=int, default=9, help="how often the contestants take turns")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and llama.cpp; mamegpt uses one in any case")
    parser.add_argument("--out", type=Path, help="JSON file to write (default: generation.json)")
    add_option(parser)
    args = parser.parse_args()
    imitate(args)
    bf16 = has_bf16(torch.device("cpu")) and not is_imitated()
    out: Path = args.out or results_file(RESULTS / "generation.json", bf16)
    torch.set_num_threads(args.threads)
    found = {}
    for architecture in args.architecture:
        found[architecture] = race(architecture, args.rounds, args.threads)
        print(table(architecture, found[architecture]), end="\n\n", flush=True)
    machine = {
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "bf16": bf16,
        "imitates_avx2": is_imitated(),
    }
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine, "versions": versions, "threads": args.threads, "rounds": args.rounds} | found
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as modules:
        os.environ.setdefault("HF_MODULES_CACHE", modules)  # before transformers is imported
        main()
