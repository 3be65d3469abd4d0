"""How fast is one stream of greedy tokens on this machine, at the sizes of the original scripts?

    pip install -r benchmarks/requirements-generation.txt
    python -m benchmarks.bench_generation [--architecture NAME ...] [--rounds 9] [--threads 1] [--out FILE]

The same random weights everywhere (4 layers, 128 wide, 4 heads, vocabulary 16,000, context 256), a prompt of 4 tokens
and as many new ones as fit into the context:

* ``naive``: the original loop, the whole text and all its logits again for each token;
* ``transformers``: ``generate`` with its cache, on the exported folder;
* ``llama.cpp f32`` and ``f16``: a GGUF file of the weights, run by xllamacpp, attention and cache as is fastest here;
  the time is what the server says of the new tokens alone, without the prompt and without HTTP;
* ``mamegpt``: `mamegpt.generation.stream_ids`, all of it, with the prompt and the preparation of the weights.

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
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from mamegpt.config import ModelConfig
from mamegpt.export_hf import MODEL_CODE
from mamegpt.generation import stream_ids
from mamegpt.layouts import LAYOUTS
from mamegpt.models import ARCHITECTURES, LanguageModel, build_model, stored_tensors

RESULTS = Path(__file__).parent / "results"
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
    architecture: str, model: LanguageModel, sizes: ModelConfig, folder: Path, n: int
) -> Contestant:
    """``generate`` on a folder as `mamegpt export` writes it, without the tokenizer's files."""
    from transformers import AutoModelForCausalLM

    layout = LAYOUTS[architecture]
    folder.mkdir()
    weights = {f"{layout.key_prefix}{name}": tensor for name, tensor in stored_tensors(model).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**layout.config(sizes, True), "dtype": "float32", "use_cache": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if layout.remote_code:
        (folder / MODEL_CODE.name).write_bytes(MODEL_CODE.read_bytes())
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=layout.remote_code).eval()
    prompt = torch.tensor([PROMPT])
    options = {"max_new_tokens": n, "do_sample": False, "use_cache": True, "eos_token_id": None, "pad_token_id": 0}

    def run() -> list[int]:
        out = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        return out[0, len(PROMPT) :].tolist()  # type: ignore[no-any-return]

    return timed(run)


# ---------------------------------------------------------------- llama.cpp

GGUF_NAMES = {
    "custom-gpt": {
        "tok_emb": "token_embd", "pos_emb": "position_embd", "final_norm": "output_norm", "out_head": "output",
        "norm1": "attn_norm", "norm2": "ffn_norm", "att.qkv": "attn_qkv", "att.proj": "attn_output",
        "ff.layers.0": "ffn_up", "ff.layers.2": "ffn_down",
    },
    "qwen3": {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    },
}  # fmt: skip
"""Our names of modules, and llama.cpp's; those of layer 2 begin with ``trf_blocks.2.`` or ``model.layers.2.``, and
``blk.2.``."""


def gguf_name(architecture: str, name: str) -> str:
    module, _, kind = name.rpartition(".")
    layer = re.match(r"(?:trf_blocks|model\.layers)\.(\d+)\.", module)
    if not layer:
        return f"{GGUF_NAMES[architecture][module]}.{kind}"
    return f"blk.{layer[1]}.{GGUF_NAMES[architecture][module[layer.end() :]]}.{kind}"


def write_gguf(path: Path, architecture: str, model: LanguageModel, sizes: ModelConfig, dtype: str) -> None:
    """The weights; matrices in ``dtype``. The pieces of the tokenizer are called t0. to t15999. ."""
    from gguf import GGUFWriter

    weights = {name: tensor.numpy() for name, tensor in stored_tensors(model).items()}
    head_dim = sizes.emb_dim // sizes.n_heads
    file = GGUFWriter(path, {"custom-gpt": "gpt2"}.get(architecture, architecture))
    file.add_context_length(sizes.context_length)
    file.add_embedding_length(sizes.emb_dim)
    file.add_block_count(sizes.n_layers)
    file.add_head_count(sizes.n_heads)
    file.add_head_count_kv(sizes.n_heads)
    if architecture == "custom-gpt":
        file.add_feed_forward_length(4 * sizes.emb_dim)
        file.add_layer_norm_eps(1e-5)
        for layer in range(sizes.n_layers):  # llama.cpp knows no GPT-2 without them
            weights.setdefault(f"trf_blocks.{layer}.att.qkv.bias", np.zeros(3 * sizes.emb_dim, np.float32))
    else:
        file.add_feed_forward_length(len(weights["model.layers.0.mlp.up_proj.weight"]))
        file.add_layer_norm_rms_eps(sizes.norm_eps)
        file.add_rope_freq_base(sizes.rope_theta)
        file.add_rope_dimension_count(head_dim)
        file.add_key_length(head_dim)
        file.add_value_length(head_dim)
    file.add_tokenizer_model("llama")
    file.add_token_list([f"t{i}." for i in range(sizes.vocab_size)])
    file.add_token_scores([0.0] * sizes.vocab_size)
    file.add_token_types([2, *[1] * (sizes.vocab_size - 1)])  # unknown, then normal
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_add_bos_token(False)
    file.add_add_space_prefix(False)
    for name, tensor in weights.items():
        in_dtype = tensor.astype(dtype) if tensor.ndim == 2 and name != "pos_emb.weight" else tensor
        file.add_tensor(gguf_name(architecture, name), in_dtype)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def llama_cpp(path: Path, dtype: str, threads: int, n_new: int) -> Contestant:
    import xllamacpp

    attention = xllamacpp.llama_flash_attn_type
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 512  # it stops one token before the end
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    if dtype == "float32":
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    else:
        params.flash_attn_type = attention.LLAMA_FLASH_ATTN_TYPE_ENABLED
    server = xllamacpp.Server(params)
    request = {
        "prompt": PROMPT, "n_predict": n_new, "temperature": 0.0, "samplers": ["temperature"], "ignore_eos": True,
        "cache_prompt": False,
    }  # fmt: skip

    def run() -> tuple[list[int], float]:
        answer = server.handle_completions(request)
        timings = answer["timings"]
        assert timings["predicted_n"] == n_new, timings
        ids = [int(i) for i in re.findall(r"t(\d+)\.", answer["choices"][0]["text"])]
        return ids, timings["predicted_ms"] / 1e3

    return run


# ---------------------------------------------------------------- the race


def contestants(
    architecture: str, model: LanguageModel, sizes: ModelConfig, folder: Path, threads: int
) -> Iterator[tuple[str, Contestant]]:
    """Names and functions; mamegpt is the first."""
    n_new = sizes.context_length - len(PROMPT)
    yield OURS, timed(lambda: list(stream_ids(model, PROMPT, n_new)))
    yield "naive", timed(lambda: naive(model, n_new))
    yield "transformers", transformers_generate(architecture, model, sizes, folder / "hf", n_new)
    for name, dtype in (("f32", "float32"), ("f16", "float16")):
        path = folder / f"{name}.gguf"
        write_gguf(path, architecture, model, sizes, dtype)
        yield f"llama.cpp {name}", llama_cpp(path, dtype, threads, n_new)


def race(architecture: str, rounds: int, threads: int) -> dict[str, Any]:
    sizes = ModelConfig(vocab_size=16_000, context_length=256, emb_dim=128, n_layers=4, n_heads=4, drop_rate=0.0)
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
    parser.add_argument("--out", type=Path, default=RESULTS / "generation.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {}
    for architecture in args.architecture:
        found[architecture] = race(architecture, args.rounds, args.threads)
        print(table(architecture, found[architecture]), end="\n\n", flush=True)
    machine = {
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine, "versions": versions, "threads": args.threads, "rounds": args.rounds} | found
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as modules:
        os.environ.setdefault("HF_MODULES_CACHE", modules)  # before transformers is imported
        main()
