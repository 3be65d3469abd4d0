"""Output of `mamegpt plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mamegpt.cli.console import columns, duration, headings
from mamegpt.cli.language import translated
from mamegpt.messages import Message, msg
from mamegpt.planning.cluster_cost import MODELS, SHARDINGS, TOKENS_PER_PARAMETER, ClusterPlan, Estimate

if TYPE_CHECKING:
    from mamegpt.planning.plan import Plan

__all__ = ["cluster_table", "plan_table"]


def plan_table(plan: Plan) -> str:
    """Return the sizes as a table, the best of them, and the source of the figures."""
    return "\n".join([translated(_source(plan)), _sizes(plan), *map(translated, _remarks(plan))])


def _source(plan: Plan) -> Message:
    """Return where the figures are from."""
    if sheet := plan.data_sheet:
        return msg(
            "estimated from the data sheet of {name}, not measured: {tflops:g} TFLOP/s in {precision}, "
            "{memory_gb:g} GB, {bandwidth:,.0f} GB/s ({source}); on such a device, leave out --gpu to measure",
            name=sheet.name,
            tflops=sheet.peak_flops / 1e12,
            precision=sheet.precision,
            memory_gb=sheet.memory_bytes / 1e9,
            bandwidth=sheet.memory_bandwidth / 1e9,
            source=sheet.source,
        )
    import torch

    where = f"{plan.device}, {plan.precision}"
    if plan.device == "cpu":
        where += ", " + translated(msg("{n} threads", n=torch.get_num_threads()))
    return msg(
        "on {where}: {memory_gb:.1f} GB of memory free; measured in {measuring_s:.0f} s (~ is "
        "estimated from the largest size measured)",
        where=where,
        memory_gb=plan.free_memory_bytes / 1e9,
        measuring_s=plan.measuring_s,
    )


def _sizes(plan: Plan) -> str:
    """Return a table with a row for each size."""
    header = headings(
        msg("size"),
        msg("parameters"),
        msg("tokens/s"),
        msg("memory"),
        msg("{minutes:g} min: tokens", minutes=plan.minutes),
        msg("bits/character"),
    )
    if plan.corpus:
        header += headings(msg("one epoch"))
    rows = []
    for cost in plan.costs:
        about = "" if cost.measured else "~"
        rows.append(
            [
                cost.size,
                f"{cost.n_parameters:,}",
                f"{about}{_rounded(cost.tokens_per_s):,}",
                f"{about}{cost.memory_bytes / 1e9:.1f} GB",
                f"{plan.n_tokens(cost) / 1e6:.1f} M",
                f"{plan.bits_per_character(cost):.2f}",
            ]
        )
        if plan.corpus:
            rows[-1].append(duration(plan.corpus_s(cost)))
    return columns(header, rows)


def _remarks(plan: Plan) -> list[Message]:
    """Return what is to be known of the figures, and the best size."""
    from mamegpt.planning import scaling_law

    best = plan.best
    found = []
    if plan.is_vocab_size_chosen:
        found.append(
            msg(
                "vocabulary size {vocab_size:,}, chosen for {minutes:g} minutes of training",
                vocab_size=plan.vocab_size,
                minutes=plan.minutes,
            )
        )
    found.append(
        msg(
            "of the time, about {start_s:.0f} s ({size}) are for n-gram counts, before the first step",
            start_s=plan.start_s(best),
            size=best.size,
        )
    )
    if plan.corpus:
        found.append(
            msg(
                "training data: {n_characters:,} characters, about {n_tokens:,} tokens; {size} will "
                "train on it for {epochs:.1f} epochs",
                n_characters=plan.corpus.n_characters,
                n_tokens=_rounded(plan.corpus.n_tokens),
                size=best.size,
                epochs=plan.n_tokens(best) / plan.corpus.n_tokens,
            )
        )
    law_error, runs = scaling_law.expected_quality()[1], scaling_law.own_runs()
    n_fitted = sum(not run.held_out for run in runs)
    return [
        *found,
        msg(
            "best for {minutes:g} minutes: {size}, about {bits:.2f} bits per character",
            minutes=plan.minutes,
            size=best.size,
            bits=plan.bits_per_character(best),
        ),
        msg(
            "(estimated from {n_fitted} runs on Wikipedia without n-gram counts, with which short runs end "
            "lower; mean error {law_error:.2f} on {n_others} other runs of up to {longest:.1f} M tokens; "
            "longer runs are an extrapolation, and other text has other values)",
            n_fitted=n_fitted,
            law_error=law_error,
            n_others=len(runs) - n_fitted,
            longest=max(run.n_tokens for run in runs) / 1e6,
        ),
    ]


def cluster_table(plan: ClusterPlan) -> str:
    """Return the estimates as a table, with a line that describes the cluster."""
    header = headings(
        msg("model"),
        msg("devices"),
        msg("parallelism"),
        msg("batch"),
        msg("tokens/s"),
        msg("efficiency"),
        msg("memory"),
        msg("checkpoint"),
        msg("training time ({n} tokens per parameter)", n=TOKENS_PER_PARAMETER),
        msg("cost"),
    )
    cluster = plan.cluster
    lines = []
    for model, way, devices in plan.rows:
        if way is None:
            lines.append((model, f"{devices:,}", translated(msg("out of memory")), *[""] * 7))
            continue
        n_tokens = TOKENS_PER_PARAMETER * MODELS[model].n_parameters
        seconds = n_tokens / way.tokens_per_s
        lines.append(
            (
                model,
                f"{devices:,}",
                _holders(way),
                f"{way.batch_tokens / 1e6:.1f}M",
                f"{way.tokens_per_s:,.0f}",
                f"{way.efficiency:.0%}",
                f"{way.memory_bytes / 1e9:.0f} GB",
                duration(way.checkpoint_s),
                duration(seconds),
                f"${seconds / 3600 * devices * cluster.price:,.0f}",
            )
        )
    about = translated(
        msg(
            "analytical estimate for {name} (nothing was run): {tflops:,.0f} TFLOP/s and "
            "{memory_gb:,.0f} GB per device, {devices_per_node} devices per node, ${price:.2f} per "
            "device hour",
            name=plan.name,
            tflops=cluster.peak_flops / 1e12,
            memory_gb=cluster.memory_bytes / 1e9,
            devices_per_node=cluster.devices_per_node,
            price=cluster.price,
        )
    )
    return f"{about}\n{columns(header, lines)}"


def _holders(way: Estimate) -> str:
    """Return the parallelism, and whether activations are recomputed."""
    held = dict(zip(SHARDINGS, headings(msg("replicated (DDP)"), msg("sharded (FSDP)")), strict=True))[way.sharding]
    return translated(msg("{held}, recomputes", held=held)) if way.recomputes else held


def _rounded(number: float) -> int:
    """Round to three significant digits, the precision of the measurement."""
    return int(float(f"{number:.3g}"))
