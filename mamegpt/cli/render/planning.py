"""What `mamegpt plan` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mamegpt.cli.console import columns, duration, headings
from mamegpt.cli.messages import translated
from mamegpt.planning.cluster_cost import MODELS, SHARDINGS, TOKENS_PER_PARAMETER, ClusterPlan, Estimate

if TYPE_CHECKING:
    from mamegpt.planning.plan import Plan

__all__ = ["cluster_table", "plan_table"]


def plan_table(plan: Plan) -> str:
    """Return the sizes as a table, with the best of them, and what the figures are from."""
    import torch

    from mamegpt.planning import scaling_law

    header = headings("size", "parameters", "tokens/s", "memory", f"{plan.minutes:g} min: tokens", "bits/character")
    if plan.corpus:
        header += headings("text once")
    rows = []
    for cost in plan.costs:
        about = "" if cost.measured else "~"
        rows.append([
            cost.size, f"{cost.n_parameters:,}", f"{about}{_rounded(cost.tokens_per_s):,}",
            f"{about}{cost.memory_bytes / 1e9:.1f} GB", f"{plan.n_tokens(cost) / 1e6:.1f} M",
            f"{plan.bits_per_character(cost):.2f}",
        ])  # fmt: skip
        if plan.corpus:
            rows[-1].append(duration(plan.corpus_s(cost)))
    where = f"{plan.device}, {plan.precision}"
    if plan.device == "cpu":
        where += ", " + translated(f"{torch.get_num_threads()} threads", part=True)
    lines = [
        translated(
            f"on {where}: {plan.free_memory_bytes / 1e9:.1f} GB of memory free; "
            f"measured in {plan.measuring_s:.0f} s (~ is reckoned from the largest size measured)"
        ),
        columns(header, rows),
    ]
    if plan.corpus:
        epochs = plan.n_tokens(plan.best) / plan.corpus.n_tokens
        lines.append(
            translated(
                f"the text: {plan.corpus.n_characters:,} characters, about {_rounded(plan.corpus.n_tokens):,} "
                f"tokens; {plan.best.size} will read it {epochs:.1f} times"
            )
        )
    law_error, runs = scaling_law.expected_quality()[1], scaling_law.own_runs()
    n_fitted, longest = sum(not run.held_out for run in runs), max(run.n_tokens for run in runs) / 1e6
    lines += [
        translated(
            f"best for {plan.minutes:g} minutes: {plan.best.size}, about {plan.bits_per_character(plan.best):.2f} "
            "bits per character"
        ),
        translated(
            f"(from {n_fitted} runs of our own on Wikipedia; {law_error:.2f} off on average on "
            f"{len(runs) - n_fitted} others, of up to {longest:.1f} M tokens; a guess past that, and other text "
            "has another level)"
        ),
    ]
    return "\n".join(lines)


def cluster_table(plan: ClusterPlan) -> str:
    """Return what was estimated as a table, under a line on the cluster."""
    header = headings(
        "model", "devices", "weights held", "batch", "tokens/s", "efficiency", "memory", "checkpoint",
        f"{TOKENS_PER_PARAMETER} tokens a parameter", "cost",
    )  # fmt: skip
    cluster = plan.cluster
    lines = []
    for model, way, devices in plan.rows:
        if way is None:
            lines.append((model, f"{devices:,}", translated("do not fit", part=True), *[""] * 7))
            continue
        n_tokens = TOKENS_PER_PARAMETER * MODELS[model].n_parameters
        seconds = n_tokens / way.tokens_per_s
        lines.append((
            model, f"{devices:,}", _holders(way),
            f"{way.batch_tokens / 1e6:.1f}M", f"{way.tokens_per_s:,.0f}",
            f"{way.efficiency:.0%}", f"{way.memory_bytes / 1e9:.0f} GB", duration(way.checkpoint_s),
            duration(seconds), f"${seconds / 3600 * devices * cluster.price:,.0f}",
        ))  # fmt: skip
    about = translated(
        f"reckoned for {plan.name}, nothing was run: devices of {cluster.peak_flops / 1e12:,.0f} TFLOP/s and "
        f"{cluster.memory_bytes / 1e9:,.0f} GB, {cluster.devices_per_node} in a node, ${cluster.price:.2f} an hour each"
    )
    return f"{about}\n{columns(header, lines)}"


def _holders(way: Estimate) -> str:
    """Who holds the weights, and whether activations are computed again."""
    held = dict(zip(SHARDINGS, headings("by each", "by all together"), strict=True))[way.sharding]
    return translated(f"{held}, recomputes", part=True) if way.recomputes else held


def _rounded(number: float) -> int:
    """Round to three digits: more were not measured."""
    return int(float(f"{number:.3g}"))
