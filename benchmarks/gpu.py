"""Prove on an accelerator what was only tested without one: ``make gpu``, a few minutes. Writes a JSON file.

    python -m benchmarks.gpu [--device cuda] [--steps 50] [--seconds 60] [--out gpu.json]
    python -m benchmarks.gpu --device cpu                 # the rehearsal, where there is none

* equal: losses of the first steps, logits and generated texts are those of the CPU, in float32
* resume: a run that was stopped and resumed has bit for bit the weights of one that was not, in each number format
* speed: tokens/s of all sizes that fit, their model FLOP utilization (the share of what a matrix product reaches), and,
  in turns with them, tokens/s of a plain PyTorch loop, such as nanoGPT's, with transformers' and litgpt's Qwen3 of the
  same sizes (litgpt if it is installed)
* mark: the seconds, start included, until a model of 1m predicts held-out text as well as a 3-gram model of all
  training text

One device is used. Exit code 1 if a check fails.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from mamegpt.system.limits import configure_libraries

configure_libraries()  # as every command does, before PyTorch is imported

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import mamegpt
from mamegpt.config import ModelConfig, Precision
from mamegpt.errors import is_out_of_memory
from mamegpt.evaluation.ngram import KneserNey
from mamegpt.models.qwen3.hf import QWEN3
from mamegpt.models.registry import build_model
from mamegpt.planning.plan import Cost, measure, operations
from mamegpt.presets import Size, preset
from mamegpt.system.devices import choose_device, described, device_name, synchronize
from mamegpt.system.files import write_json
from mamegpt.training.autotune import formats
from mamegpt.training.engine import choose_engine, load_engine
from mamegpt.training.events import Event, Saved, StepEvent, Validated
from mamegpt.training.forward import SummedLoss, compute_dtype, micro_batch
from mamegpt.training.loss_scaling import loss_scaler
from mamegpt.training.optim import Optimizer, build_optimizer

N_STORIES = 2000
VOCAB_SIZE = 2000
PROMPTS = ("【月見町】", "ある春の朝、", "豆")
LOSS_TOLERANCE = 0.02
"""Nats per token: sums in another order, magnified by Muon over some steps."""
LOGIT_TOLERANCE = 1e-3
"""Share of the largest logit."""
PRODUCT_SIZE = 4096
ORDER = 3
"""Of the n-gram model that sets the mark."""
MIN_ROUNDS = 3
OURS = "mamegpt"
Step = Callable[[], object]
Speeds = dict[Size, dict[str, float]]


class Check(NamedTuple):
    """A fact that must hold."""

    name: str
    passed: bool
    found: str


def settings(folder: Path, device: str, name: str, **changes: Any) -> mamegpt.TrainConfig:
    """Return the settings of a short run of the smallest size."""
    return preset(
        "1m",
        data=folder / "stories.txt",
        tokenizer=folder / "jp.model",
        out=folder / name,
        device=device,
        context_length=128,
        batch_size=8,
        compile="false",
        **{"ngrams": False, "engine": "torch", "precision": "fp32", **changes},
    )


def equality(folder: Path, device: str, steps: int) -> list[Check]:
    """Compare losses, logits and texts with those of the CPU."""
    losses = [
        mamegpt.train(settings(folder, place, f"equal-{i}", max_steps=steps)).losses
        for i, place in enumerate(("cpu", device))
    ]
    apart = max(abs(here - there) for here, there in zip(*losses, strict=True))
    cpu, there = (mamegpt.load(folder / "equal-0", device=place) for place in ("cpu", device))
    ids = torch.tensor([cpu.tokenizer.encode("".join(PROMPTS))])
    with torch.no_grad():
        expected, found = (one.model(ids.to(one.device)).float().cpu() for one in (cpu, there))
    difference = float((found - expected).abs().max() / expected.abs().max())
    pairs = [
        [one.generate(prompt, max_new_tokens=32, temperature=temperature, seed=1) for one in (cpu, there)]
        for prompt in PROMPTS
        for temperature in (0.0, 0.7)
    ]
    n_equal = sum(one == other for one, other in pairs)
    return [
        Check(f"losses of {steps} steps", apart < LOSS_TOLERANCE, f"at most {apart:.2e} nats apart"),
        Check("logits", difference < LOGIT_TOLERANCE, f"at most {difference:.1e} of the largest apart"),
        Check("generated texts", n_equal == len(pairs), f"{n_equal} of {len(pairs)} equal"),
    ]


def resume(folder: Path, device: str, precision: str) -> Check:
    """Compare the weights of a run that was stopped with those of one that was not."""
    straight = settings(folder, device, f"straight-{precision}", max_steps=12, save_every_steps=4, precision=precision)
    stopped = dataclasses.replace(straight, out=str(folder / f"stopped-{precision}"))

    def stop(event: Event) -> None:
        if isinstance(event, Saved):
            raise KeyboardInterrupt

    mamegpt.train(straight)
    try:
        mamegpt.train(stopped, watchers=[stop])
    except KeyboardInterrupt:
        mamegpt.train(stopped, resume=True)
    place = Path("checkpoints", "step-00000012", "model.safetensors")
    equal = (Path(straight.out) / place).read_bytes() == (Path(stopped.out) / place).read_bytes()
    return Check(f"resumed run, {precision}", equal, "equal bits" if equal else "other bits")


def peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Return the FLOP/s of a square matrix product, the fastest of some."""
    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device).to(dtype) for _ in range(2))
    best = best_s(lambda: a @ b, device, seconds)
    return 2 * PRODUCT_SIZE**3 / best


def best_s(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the seconds of the fastest of as many runs as fit into ``seconds``, at least three."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def seconds_to_mark(folder: Path, device: str, limit_s: float) -> dict[str, float | None]:
    """Return the mark, the loss of a 3-gram model in nats per token, the last loss, and the seconds until the mark.

    The seconds are None if it takes longer than the limit.
    """
    begin = time.perf_counter()
    reached: list[float] = []
    found: list[float] = []
    losses: list[float] = []

    def watch(event: Event) -> None:
        elapsed_s = time.perf_counter() - begin
        if isinstance(event, Validated) and not found:
            splits = mamegpt.Run(folder / "mark").tokens()
            assert splits is not None, "the run has tokenized its text"
            train, val = (splits[1][name].tokens for name in ("train", "val"))
            found.append(
                -float(np.log(KneserNey(train, VOCAB_SIZE, ORDER).probabilities(val.astype(np.int64))[1:]).mean())
            )
        if isinstance(event, Validated):
            losses.append(event.quality.loss)
            if losses[-1] <= found[0]:
                reached.append(elapsed_s)
        if reached or (isinstance(event, StepEvent) and elapsed_s > limit_s):
            raise KeyboardInterrupt

    changes: dict[str, Any] = {"precision": "auto", "engine": "auto", "ngrams": True}
    with contextlib.suppress(KeyboardInterrupt):
        mamegpt.train(
            settings(folder, device, "mark", minutes=limit_s / 60, eval_every_steps=20, **changes), watchers=[watch]
        )
    return {name: one[-1] if one else None for name, one in (("mark", found), ("loss", losses), ("seconds", reached))}


def of_transformers(sizes: ModelConfig) -> nn.Module:
    """Return transformers' Qwen3, ids to logits."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Qwen3ForCausalLM(Qwen3Config(**QWEN3.config(sizes)))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
            return logits

    return Logits()


def of_litgpt(sizes: ModelConfig) -> nn.Module:
    """Return litgpt's Qwen3, ids to logits."""
    from litgpt.config import Config
    from litgpt.model import GPT

    known = QWEN3.config(sizes)
    model: Any = GPT(
        Config.from_name(
            "Qwen3-0.6B",
            block_size=sizes.context_length,
            n_layer=sizes.n_layers,
            n_embd=sizes.emb_dim,
            n_head=sizes.n_heads,
            n_query_groups=known["num_key_value_heads"],
            head_size=known["head_dim"],
            intermediate_size=known["intermediate_size"],
            vocab_size=sizes.vocab_size,
            padded_vocab_size=sizes.vocab_size,
        )
    )
    if sizes.tie_embeddings:
        model.lm_head.weight = model.transformer.wte.weight
    return cast(nn.Module, model)


PEERS: dict[str, Callable[[ModelConfig], nn.Module]] = {"transformers": of_transformers, "litgpt": of_litgpt}


def own_step(size: Size, device: torch.device, precision: Precision) -> Step:
    """Return a step as `mamegpt.train` makes it with random ids, without compiled code."""
    config = preset(size, precision=precision)
    ids = torch.randint(VOCAB_SIZE, (config.batch_size, config.context_length), device=device)
    model = build_model(config.architecture, config.model(VOCAB_SIZE)).to(device).train()
    native = load_engine(choose_engine(config, device), device, must=False)
    summed_loss = SummedLoss(model, precision, native=native)
    optimizer, scaler = build_optimizer(model, config), loss_scaler(config, device)

    def step() -> None:
        for rows in ids.split(micro_batch(config, config.batch_size, device)):
            scaler.scale(summed_loss(rows, rows) / ids.numel()).backward()
        update(model, optimizer, scaler)

    return step


def plain_step(
    build: Callable[[ModelConfig], nn.Module], size: Size, device: torch.device, precision: Precision
) -> Step:
    """Return a step of a plain PyTorch loop with random ids: autocast, fused AdamW, all logits at once."""
    config, dtype = preset(size), compute_dtype(precision)
    ids = torch.randint(VOCAB_SIZE, (config.batch_size, config.context_length), device=device)
    model = build(config.model(VOCAB_SIZE)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        scaler.scale(loss).backward()
        update(model, optimizer, scaler)

    return step


def update(model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Clip the gradient, and take the optimizer's step."""
    scaler.unscale_(optimizer)  # type: ignore[arg-type]  # several chained have all it needs
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)  # type: ignore[arg-type]
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def tokens_per_s(size: Size, device: torch.device, precision: Precision, seconds: float) -> dict[str, float]:
    """Return the tokens/s of a size in training, ours and those of plain loops with each package that is installed.

    They take turns for about ``seconds`` each, at least three rounds, and the fastest counts: another program's work
    can only make a step slower. It is 0 where the memory does not suffice.
    """
    builders = {OURS: own_step} | {
        name: functools.partial(plain_step, build) for name, build in PEERS.items() if importlib.util.find_spec(name)
    }
    steps: dict[str, Step] = {}
    for name, build in builders.items():
        try:
            step = build(size, device, precision)
            step()  # warms up
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            steps[name] = step
    best = dict.fromkeys(steps, math.inf)
    begin = time.perf_counter()
    for round_ in itertools.count():
        if round_ >= MIN_ROUNDS and time.perf_counter() - begin > seconds * len(steps):
            break
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            best[name] = min(best[name], time.perf_counter() - start)
    config = preset(size)
    return {name: config.batch_size * config.context_length / best.get(name, math.inf) for name in builders}


def table(checks: list[Check], costs: list[Cost], flops: dict[str, int], peak: float, speeds: Speeds) -> list[str]:
    """Return the results as lines; ``speeds`` are the tokens/s by size and by what computes."""
    names = [OURS, *(name for name in PEERS if importlib.util.find_spec(name))]
    lines = [f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.found}" for check in checks]
    lines.append("training, tokens/s in turns; of peak: what mamegpt reaches of a large matrix product")
    lines.append(
        f"{'size':>6}{'parameters':>14}{'of peak':>9}{'memory':>10}" + "".join(f"{name:>14}" for name in names)
    )
    for cost in costs:
        if found := speeds.get(cost.size):
            lines.append(
                f"{cost.size:>6}{cost.n_parameters:>14,}{found[OURS] * flops[cost.size] / peak:>9.1%}"
                f"{cost.memory_bytes / 1e9:>7.2f} GB" + "".join(f"{found[name]:>14,.0f}" for name in names)
            )
    lines += [f"skipped {name}: it is not installed" for name in PEERS if name not in names]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="auto", help="as for mamegpt train")
    parser.add_argument("--steps", type=int, default=50, help="steps whose losses are compared")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for measuring the speed")
    parser.add_argument("--mark-seconds", type=float, default=120.0, help="most time for reaching the 3-gram mark")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file of the results")
    args = parser.parse_args()
    choice = choose_device(args.device)
    device = choice.device
    print(described(device), *choice.notices, sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        mamegpt.write_stories(folder / "stories.txt", N_STORIES)
        mamegpt.train_tokenizer(mamegpt.read_texts(folder / "stories.txt"), folder / "jp", vocab_size=VOCAB_SIZE)
        checks = equality(folder, str(device), args.steps)
        checks += [resume(folder, str(device), precision) for precision in formats(device)]
        mark = seconds_to_mark(folder, str(device), args.mark_seconds)
    precision, costs = measure(VOCAB_SIZE, device, args.seconds)
    peak = peak_flops(device, compute_dtype(precision) or torch.float32)
    flops = {cost.size: operations(preset(cost.size), VOCAB_SIZE)[1] for cost in costs}
    speeds = {
        cost.size: tokens_per_s(cost.size, device, precision, args.seconds / 40) for cost in costs if cost.measured
    }
    print(*table(checks, costs, flops, peak, speeds), sep="\n")
    when = f"reached after {mark['seconds']:.0f} s" if mark["seconds"] else f"not reached in {args.mark_seconds:g} s"
    print(f"3-gram mark, {mark['mark'] or 0:.3f} nats per token: {when}, start included (loss {mark['loss'] or 0:.3f})")
    write_json(
        args.out,
        {
            "device": str(device),
            "name": device_name(device),
            "torch": torch.__version__,
            "notices": choice.notices,
            "precision": precision,
            "peak_flops": peak,
            "checks": [check._asdict() for check in checks],
            "three_gram_mark": mark,
            "sizes": [
                {
                    **dataclasses.asdict(cost),
                    "flops_per_token": flops[cost.size],
                    "tokens_per_s_in_turns": speeds.get(cost.size),
                }
                for cost in costs
            ],
        },
    )
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
