"""The tables of the pages in docs/, made from the measurements in benchmarks/results: ``python -m benchmarks.tables``.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``. tests/test_docs.py holds the pages to the results.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = tuple(ROOT / "docs" / name for name in ("benchmarks.md", "serving.md", "serving.en.md"))
TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def results(name: str) -> dict[str, Any]:
    """Return the measurements that a benchmark wrote last."""
    loaded: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def training(name: str) -> list[str]:
    """Return contestants by speed: ratio with its range over the rounds, tokens/s, peak memory."""
    rows = []
    for contestant, found in results(name)["contestants"].items():
        ratio = found["speed_up"]
        cells = (
            bold(contestant, contestant.startswith("mamegpt")),
            f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
            f"{found['tokens_per_s']['median']:,.0f}",
            f"{found['peak_bytes'] / 1e9:.2f} GB",
        )
        rows.append((ratio["median"], cells))
    rows.sort(reverse=True)
    return table(("contestant", "ratio", "tokens/s", "peak memory"), [cells for _, cells in rows])


def head_to_head(name: str) -> list[str]:
    """Return the finals: two contestants in turns, as often as it takes."""
    rows = []
    for final in results(name)["finals"]:
        ratio = final["b_over_a"]
        rows.append((final["b"], final["a"], f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"))
    return table(("contestant", "compared with", "ratio"), rows)


def quality(name: str) -> list[str]:
    """Return bits per character after some minutes of training; several seeds as their mean and range."""
    found = results(name)
    rows = []
    for minutes in found["minutes"]:
        runs = {of: [run for run in found["runs"][of] if run["minutes"] == minutes] for of in found["runs"]}
        ours = [run["bits_per_character"] for run in runs["mamegpt"]]
        spread = f" ({min(ours):.3f} to {max(ours):.3f})" if len(ours) > 1 else ""
        rows.append(
            (
                f"{minutes:g}",
                f"{runs['mamegpt'][0]['vocab_size']:,}",
                f"**{statistics.fmean(ours):.3f}**{spread}",
                f"{runs['transformers'][0]['bits_per_character']:.3f}",
            )
        )
    return table(("minutes", "vocabulary", "mamegpt", "transformers"), rows)


def generation(name: str) -> list[str]:
    """Return the programs that generate, for each of the two models."""
    rows = []
    for model in ("qwen3", "custom-gpt"):
        for program, found in results(name)[model].items():
            ratio = found["mamegpt_times_as_fast"]
            times = f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})" if ratio else "1"
            rows.append((model, bold(program, program == "mamegpt"), times, f"{found['tokens_per_s']:,}"))
    return table(("model", "program", "mamegpt's speed / its speed", "tokens/s"), rows)


def extraction(name: str) -> list[str]:
    """Return the ways to extract documents by keyword, for a rare and a frequent one."""
    rows = []
    for keyword, ways in results(name)["keywords"].items():
        for way, found in ways.items():
            ratio = found["wall_over_ours"]
            times = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if way != "mamegpt" else "1"
            memory = f"{found['peak_bytes']['median'] / 1e6:,.0f} MB"
            rows.append((keyword, bold(way, way == "mamegpt"), times, memory))
    return table(("keyword", "way", "its time / mamegpt's time", "peak memory"), rows)


def runtimes(name: str) -> list[str]:
    """Return the programs that load our exports: what is equal, speed, size."""
    header = ("program", "`--to`", "equal continuations", "equal token ids", "tokens/s", "size", "date")
    return table(header, _runtimes(name, "{} of {}", " ({} more up to a tie)"))


def runtimes_in_japanese(name: str) -> list[str]:
    """Return the table of `runtimes` in Japanese."""
    header = ("プログラム", "`--to`", "同じ続き", "同じトークン ID", "トークン/秒", "大きさ", "確認日")
    return table(header, _runtimes(name, "{} / {}", "(ほかに同点まで同じ: {})"))


def _runtimes(name: str, share: str, ties: str) -> list[tuple[str, ...]]:
    """Return the rows of `runtimes`, in the order of the results."""
    rows = []
    for program, found in results(name).items():
        equal = share.format(found["equal"], found["prompts"]) + (ties.format(found["ties"]) if found["ties"] else "")
        texts = share.format(f"{found['texts_equal']:,}", f"{found['texts']:,}") if "texts" in found else "-"
        size = f"{found['installed_bytes'] / 1e6:,.0f} MB" if found["installed_bytes"] else "-"
        speed = f"{found['tokens_per_s']:,}"
        rows.append((f"{program}, {found['version']}", found["export"], equal, texts, speed, size, found["date"]))
    return rows


def bold(text: str, is_bold: bool) -> str:
    """Return text in bold, or as it is."""
    return f"**{text}**" if is_bold else text


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


TABLES: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "train-no-bf16": (training, "train-no-bf16"),
    "train-no-bf16-finals": (head_to_head, "train-no-bf16"),
    "train-amx": (training, "train-amx"),
    "train-amx-finals": (head_to_head, "train-amx"),
    "train": (training, "train"),
    "train-finals": (head_to_head, "train"),
    "curves": (quality, "curves"),
    "curves-amx": (quality, "curves-amx"),
    "generation-no-bf16": (generation, "generation-no-bf16"),
    "generation": (generation, "generation"),
    "data": (extraction, "data"),
    "runtimes": (runtimes, "runtimes"),
    "runtimes-ja": (runtimes_in_japanese, "runtimes"),
}
"""Each table's name on its page, what renders it, and the results it is made from."""


def rendered(page: str) -> str:
    """Return the page with its tables made anew."""

    def fill(found: re.Match[str]) -> str:
        render, name = TABLES[found[2]]
        return found[1] + "\n".join(["", *render(name), "", ""])

    return TABLE.sub(fill, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")
